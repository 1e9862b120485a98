"""Changes of a finished dataset: appended recordings, edits, joined shards, removal of old generations. Each is one commit."""
