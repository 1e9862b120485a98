"""Compares several datasets, and converts one to the meaning of another."""
