"""Scoring: splits of stories, entries that are scored on them, and the judges that score."""
