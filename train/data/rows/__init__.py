"""Finds the rows that samples need, and copies them out of mapped or packed shards."""
