"""Reads a camera: its files, their stamps, and the headers of its JPEGs."""
