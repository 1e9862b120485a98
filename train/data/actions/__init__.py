"""Expresses recorded actions in the form that a policy is trained on, and back."""
