"""A run's full state on disk: the files of a checkpoint, the run's folder, and a policy loaded from a checkpoint."""
