"""Decides, from the input alone, which episode goes to which shard and split."""
