"""Decides from the input alone which shard and which split each episode goes to."""
