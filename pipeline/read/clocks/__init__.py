"""Reads stamps of every kind into int64 nanoseconds or float64 seconds."""
