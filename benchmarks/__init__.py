"""Benchmarks and tools of the project itself, outside the wheel: ``python -m benchmarks``."""
