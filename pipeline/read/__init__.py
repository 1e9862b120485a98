"""Readers of raw files: each gives arrays or findings, never a guess."""

from vlapipe.pipeline.read.csv.text import CsvTable, TableError, read_table

__all__ = ["CsvTable", "TableError", "read_table"]
