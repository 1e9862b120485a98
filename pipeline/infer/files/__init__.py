"""Tells what the files of a folder are: episodes, tables, cameras, stamps of images, and what is not read."""
