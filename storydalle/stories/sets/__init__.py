"""Story sets of others and of the user's own, a file each."""
