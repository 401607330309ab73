"""Networks that read pictures, for metrics to judge by."""
