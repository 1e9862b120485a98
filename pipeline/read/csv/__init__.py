"""Reads tables of text, from their bytes to the fields of a stream."""
