"""Files and paths: writing completely or not at all, reading without executing anything, names, locks, records."""
