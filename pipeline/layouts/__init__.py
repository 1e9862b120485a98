"""Reads what datasets of other projects say about themselves, and finds their episodes by it."""
