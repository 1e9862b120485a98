"""Raw episodes in, validated shards out; never imports torch."""
