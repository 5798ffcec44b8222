"""Scoring files of pairs: in parts that a second run need not do again."""
