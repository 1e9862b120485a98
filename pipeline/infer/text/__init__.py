"""Cuts text tables: encoding, delimiter, decimal sign, header, and lines that are no rows."""
