"""Reports what an ingest did, and what a dataset or a cache holds."""
