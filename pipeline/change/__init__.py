"""Changes of a finished dataset: appended recordings, edits, joined shards, removal of generations. Each is one commit."""
