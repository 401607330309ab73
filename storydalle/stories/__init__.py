"""What a story is, and where stories come from."""
