"""The stored form: shard files, the manifest that lists them, and the mapped arrays that training reads."""
