"""Says which frame comes at which place of the global sequence, and which rank reads it."""
