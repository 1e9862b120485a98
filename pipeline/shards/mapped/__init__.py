"""The arrays that training reads: mapped in place, or unpacked once into a cache and mapped there."""
