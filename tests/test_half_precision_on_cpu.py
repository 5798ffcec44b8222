"""A number format that the CPU only emulates is reported once."""

from __future__ import annotations

import logging

import pytest
import torch

from gpurerank.models import devices


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_format_that_the_cpu_emulates_is_reported_once(
    dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    devices._warn_of_emulation.cache_clear()
    cpu = torch.device("cpu")
    with caplog.at_level(logging.WARNING, logger="gpurerank"):
        assert devices.resolve_dtype(dtype, cpu) == devices.DTYPES[dtype]
        devices.resolve_dtype(dtype, cpu)
        devices.resolve_dtype("float32", cpu)
        devices.resolve_dtype("auto", cpu)
    messages = [record.getMessage() for record in caplog.records]
    # What the processor can do decides, so that the claim holds on any machine.
    emulated = devices._cpu_emulates(dtype)
    assert [dtype in message and "float32" in message for message in messages] == [True] * emulated
