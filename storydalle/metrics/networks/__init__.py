"""Networks that read pictures for the metrics."""
