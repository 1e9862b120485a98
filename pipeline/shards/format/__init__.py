"""The format of a shard file: the ZIP container, NPZ and Zarr members, codecs, and atomic writing."""
