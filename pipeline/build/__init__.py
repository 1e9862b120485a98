"""Builds shards in parallel, writes a commit record for each shard, and puts the records together for the manifest."""
