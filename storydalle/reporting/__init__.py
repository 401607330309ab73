"""Strips, sheets, plots, tables and pages: results as a person reads them."""
