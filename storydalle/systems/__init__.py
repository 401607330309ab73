class ForeignState(ValueError):
    """A checkpoint that a run with other settings wrote."""
