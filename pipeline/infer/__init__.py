"""Looks at recordings that nobody has described and writes a schema for them; and tries a schema on recordings."""
