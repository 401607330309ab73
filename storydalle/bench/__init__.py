"""Speed: what is measured, at which sizes, and the rows of its tables."""
