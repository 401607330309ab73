"""Story data sets, one file each: those of other authors, and the user's own."""
