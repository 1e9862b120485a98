"""Datasets to batches: frames, their order, rows and images, threads; imports nothing else of train."""
