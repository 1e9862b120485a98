"""Tells what the arrays of a container are: NPZ, NPY, HDF5, Zarr and Parquet."""
