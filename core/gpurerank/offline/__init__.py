"""Offline scoring: files of pairs, in parts, so that an interrupted job can continue."""
