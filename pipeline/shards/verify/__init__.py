"""Compares a dataset's files with what its manifest says of them."""
