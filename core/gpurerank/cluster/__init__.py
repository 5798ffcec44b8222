"""Scoring on a Ray cluster: a pool of actors, a job over files, an application that serves."""
