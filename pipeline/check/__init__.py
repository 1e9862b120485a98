"""Quality gates on streams that could be read: their clocks, values, poses, and how streams lie to each other."""
