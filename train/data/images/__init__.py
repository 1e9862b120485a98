"""Reads, resizes and varies the images of a batch."""
