"""The arrays that training reads: mapped in the shard, or unpacked once into a cache and mapped there."""
