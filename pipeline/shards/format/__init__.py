"""One shard file: its ZIP container, members of either kind (NPZ, Zarr), codecs, and safe writing."""
