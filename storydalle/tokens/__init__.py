"""Captions <-> tokens, frames <-> codes; codes cached and in shards."""
