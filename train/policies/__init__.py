"""Vision-Language-Action policies: the contract, how one is found by name, and the built-in one."""
