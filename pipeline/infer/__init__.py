"""Guesses a schema for recordings that nobody has described, and tries a schema on recordings."""
