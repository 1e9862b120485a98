"""Schemas: TOML descriptions of what a lab's recordings look like. This room imports no other room of vlapipe."""
