"""Builds shards in parallel, keeps a record of each, and commits them."""
