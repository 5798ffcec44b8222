"""Judging rankings on a collection."""
