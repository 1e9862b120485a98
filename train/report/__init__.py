"""What is told of a run: metrics, W&B, and where the time of a step goes."""
