"""Contender specifications: parsed, described in words and written as Python code."""

from __future__ import annotations

import pytest

from gpurerank import InputError
from gpurerank.evaluation.contender_descriptions import (
    describe_contender,
    import_line,
    python_expression,
)
from gpurerank.evaluation.contender_specs import (
    CascadePlan,
    FusionPlan,
    Stage,
    default_specs,
    parse_contender,
)


def test_specifications_are_parsed_to_plans() -> None:
    model, bi = Stage("cross-encoder", "m"), Stage("bi-encoder", "embedded")
    plans = {spec: parse_contender(spec, "m").plan for spec in PLANS}
    assert plans["cross-encoder"] == model
    assert plans["cross-encoder:a/b"] == Stage("cross-encoder", "a/b")
    assert plans["http://host:8000/x"] == Stage("server", "http://host:8000/x")
    assert plans["cascade"] == CascadePlan(bi, model, 20)
    assert plans["cascade:7:bi-encoder:b+https://h"] == CascadePlan(
        Stage("bi-encoder", "b"), Stage("server", "https://h"), 7
    )
    assert plans["rrf"] == FusionPlan(((bi, 1.0), (model, 1.0)), "reciprocal", 1.0)
    assert plans["rrf:first-stage+cross-encoder"] == FusionPlan(((model, 1.0),), "reciprocal", 1.0)
    assert plans["weighted:bi-encoder=0.3+cross-encoder:a/b=2"] == FusionPlan(
        ((bi, 0.3), (Stage("cross-encoder", "a/b"), 2.0)), "weighted", 0.0
    )


PLANS = {
    "cross-encoder": "Reranker('m')",
    "cross-encoder:a/b": "Reranker('a/b')",
    "http://host:8000/x": (
        "Reranker.from_scorer(RemoteScorer('http://host:8000/x'), name='http://host:8000/x')"
    ),
    "cascade": "Cascade(BiEncoder(), Reranker('m'), candidates=20)",
    "cascade:7:bi-encoder:b+https://h": (
        "Cascade(BiEncoder('b'), Reranker.from_scorer(RemoteScorer('https://h'),"
        " name='https://h'), candidates=7)"
    ),
    "rrf": "Fusion([BiEncoder(), Reranker('m')], input_weight=1)",
    "rrf:first-stage+cross-encoder": "Fusion([Reranker('m')], input_weight=1)",
    "weighted:bi-encoder=0.3+cross-encoder:a/b=2": (
        "Fusion([BiEncoder(), Reranker('a/b')], method=\"weighted\", weights=[0.3, 2])"
    ),
}


def test_a_contender_has_a_description_and_python_code() -> None:
    for spec, expression in PLANS.items():
        contender = parse_contender(spec, "m")
        assert python_expression(contender) == expression
        for name in import_line(contender).removeprefix("from gpurerank import ").split(", "):
            assert name in expression
        assert describe_contender(contender)


INVALID_SPECS = (
    "",
    "bm25",
    "cascade:0",
    "cascade:x",
    "cascade:5:nothing",
    "rrf:first-stage",
    "rrf:cross-encoder",
    "weighted:",
    "weighted:bi-encoder=1",
    "weighted:bi-encoder=1+first-stage=1",
    "weighted:bi-encoder=0+cross-encoder=1",
    "weighted:bi-encoder=1+cross-encoder=nan",
    "ftp://host",
)


def test_an_invalid_specification_raises_with_the_valid_forms() -> None:
    for spec in INVALID_SPECS:
        with pytest.raises(InputError, match=r"it must be bi-encoder\[:MODEL\]"):
            parse_contender(spec, "m")


def test_a_bi_encoder_first_stage_is_not_compared_with_a_bi_encoder() -> None:
    assert default_specs(dense_first_stage=False) == [
        "bi-encoder",
        "cross-encoder",
        "cascade:20",
        "rrf",
    ]
    assert not any(
        "bi-encoder" in spec or "cascade" in spec for spec in default_specs(dense_first_stage=True)
    )
