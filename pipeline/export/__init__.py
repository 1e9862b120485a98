"""Writes a dataset in the format of another project, LeRobot or robomimic. Reads it as ``open_dataset`` gives it."""
