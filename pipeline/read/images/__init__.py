"""Reads a camera: the files, their stamps, and what a JPEG says of itself."""
