"""Convert files of other programs from and to modules of this package, by tables."""
