"""Autoregressive transformers over caption tokens and image codes, behind one interface."""
