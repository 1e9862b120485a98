"""Reads cameras that were recorded as videos."""
