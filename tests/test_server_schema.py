"""The server answers as its own OpenAPI page tells, whatever is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from gpurerank.server.options import Limits
from tests.serving import Running, options_of, running

KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def server(model_folder: Callable[[str], str]) -> Iterator[Running]:
    # Not so few that a body which breaks the schema is over the limit too, and told that first.
    limits = Limits(passages=1_000, body_bytes=1 << 20)
    with running(options_of(model_folder("bert"), api_key=KEY, limits=limits)) as found:
        yield found


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
def test_answers_are_those_that_the_page_tells(
    server: Running, mode: schemathesis.GenerationMode
) -> None:
    page = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    tried = 0
    for each in page.get_all_operations():
        operation = each.ok()
        # Without a body there is nothing to send wrongly.
        if operation.body or mode is schemathesis.GenerationMode.POSITIVE:
            tried += 1
            check(operation, mode)
    assert tried >= 12


def check(operation: schemathesis.APIOperation, mode: schemathesis.GenerationMode) -> None:
    @hypothesis.settings(
        max_examples=12,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def answered(case: schemathesis.Case) -> None:
        case.call_and_validate(
            headers={"Authorization": f"Bearer {KEY}"},
            # 2.0 is an integer to JSON Schema, which cannot say "as many as" either.
            excluded_checks=[positive_data_acceptance],
        )

    answered()
