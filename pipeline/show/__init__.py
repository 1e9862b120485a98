"""Prints what an ingest, a dataset or a cache holds."""
