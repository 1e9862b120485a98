"""Quality gates on streams that could be read: their clocks, values and poses, and how the streams fit together."""
