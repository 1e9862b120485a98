"""Datasets in object stores: the store itself, and the local copies of its small files."""
