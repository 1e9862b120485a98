"""Finds the episodes of a dataset and sorts their files into streams. No file is opened."""
