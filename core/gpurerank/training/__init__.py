"""Adapting a cross-encoder to data."""
