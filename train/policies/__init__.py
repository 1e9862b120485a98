"""Vision-Language-Action policies: the interface, the lookup of a policy by name, and the built-in policy."""
