"""Computes data from stored arrays: actions, derived fields, and the frames whose windows cross no gap."""
