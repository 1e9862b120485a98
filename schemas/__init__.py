"""What a lab's recordings look like, said in TOML; imports nothing else of ours."""
