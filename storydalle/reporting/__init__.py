"""Strips, sheets, plots, tables and pages: results for people."""
