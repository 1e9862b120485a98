"""The description of a dataset: manifest.json, the episodes table and the table of gaps."""
