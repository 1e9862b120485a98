"""Readers of raw files: each gives arrays or findings, never a guess."""

from vlapipe.pipeline.readers.csv_text import CsvTable, TableError, read_table

__all__ = ["CsvTable", "TableError", "read_table"]
