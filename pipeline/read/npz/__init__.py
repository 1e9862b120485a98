"""Reads NPZ and NPY files into the rows of a stream."""
