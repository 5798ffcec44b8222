"""OpenTelemetry spans, exported only where the process has its SDK set up; none holds text.

FastAPI opens a span for each request, under the caller's own where it names one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

# What a validation or an exception says may hold a passage.
REQUEST_SPANS = TelemetryConfig(logs=False, operation_spans=False)


@contextmanager
def span(*, passages: int, tokens: int) -> Iterator[None]:
    """A span of one request's work: its size, and the kind of its failure."""
    with trace.get_tracer("gpurerank").start_as_current_span(
        "gpurerank",
        attributes={"gpurerank.passages": passages, "gpurerank.estimated_tokens": tokens},
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise
