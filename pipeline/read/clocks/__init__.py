"""Reads stamps of all kinds into int64 nanoseconds or float64 seconds."""
