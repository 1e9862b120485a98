"""Reports of a run: metrics, W&B, and the time of each phase of a step."""
