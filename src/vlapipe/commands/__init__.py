"""Commands of ``vlapipe`` that have a file of their own, which ``vlapipe.cli`` adds; and what their options share."""
