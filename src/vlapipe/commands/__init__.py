"""Commands that ``vlapipe.cli`` adds to the ``vlapipe`` command, and the types of their options."""
