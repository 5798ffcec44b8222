"""A real Ray cluster of this machine for the tests of a module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two processors and little memory, joined by this process."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray's processes give way to all others by default; beside other tests they would starve.
    os.environ["RAY_worker_niceness"] = "0"
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=150_000_000,
        namespace="gpurerank",
        log_to_driver=False,
        configure_logging=False,
    )
    yield
    ray.shutdown()
