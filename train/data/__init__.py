"""Turns datasets into batches: frames, their order, rows, images and threads. It imports nothing else of train."""
