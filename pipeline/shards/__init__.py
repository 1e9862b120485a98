"""The stored form of a dataset: shard files, the manifest that lists them, and the mapped arrays for training."""
