"""Tells which fields are the state, which are the action, and what a sample consists of."""
