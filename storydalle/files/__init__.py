"""Files and paths: written whole or not at all, read without executing anything, named, locked, recorded."""
