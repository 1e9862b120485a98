"""Tells what the columns of a table are: the clock and its unit, fields, and columns that are not kept."""
