"""OpenTelemetry spans, where it is installed; no attribute holds text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

try:
    from opentelemetry import propagate, trace
except ImportError:
    _TRACED = False
else:
    _TRACED = True


@contextmanager
def span(request: Request, *, passages: int, tokens: int) -> Iterator[None]:
    """A span of one request's work, under the caller's own where it names one."""
    if not _TRACED:
        yield
        return
    tracer = trace.get_tracer("gpurerank")
    parent = propagate.extract(dict(request.headers))
    attributes = {
        "http.route": request.scope["path"],
        "gpurerank.passages": passages,
        "gpurerank.estimated_tokens": tokens,
    }
    with tracer.start_as_current_span("gpurerank", context=parent, attributes=attributes):
        yield
