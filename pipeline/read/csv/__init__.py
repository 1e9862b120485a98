"""Reads tables of text: turns a file's bytes into the fields of a stream."""
