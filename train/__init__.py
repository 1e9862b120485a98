"""Reads windows of the shards in batches and trains a policy on them. This package never imports dask or pandas."""
