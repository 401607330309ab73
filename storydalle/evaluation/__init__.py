"""Scoring: splits of stories, entries to score on them, and judges that compute scores."""
