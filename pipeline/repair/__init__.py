"""Makes the damaged files of a dataset again, bit for bit, from the recordings or from a copy."""
