"""Readers of raw files: each gives arrays or findings, never a guess."""
