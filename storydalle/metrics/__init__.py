"""Scores of drawn stories, as torchmetrics classes."""
