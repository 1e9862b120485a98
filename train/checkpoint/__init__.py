"""A run's full state on the disk: its files, its folder, and the policy that is rebuilt from it."""
