"""Changes of a finished dataset: appended recordings, edits, removal of old generations. Each is one commit."""
