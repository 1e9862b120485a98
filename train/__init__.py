"""Windows of the shards in batches, and a lean trainer over them; never imports dask or pandas."""
