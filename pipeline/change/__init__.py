"""Changes of a finished dataset: appends, edits, joined shards, removal of generations. Each is one commit."""
