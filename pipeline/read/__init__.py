"""Readers of raw files. A reader returns arrays or reports findings; no reader guesses."""

from vlapipe.pipeline.read.csv.text import CsvTable, TableError, read_table

__all__ = ["CsvTable", "TableError", "read_table"]
