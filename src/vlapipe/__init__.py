"""Folders of robot demonstrations in, validated shards and a trained policy out."""

__version__ = "0.1.0"
