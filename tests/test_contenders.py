"""Contenders as texts: what is read, told in words and written as Python."""

from __future__ import annotations

import pytest

from gpurerank import InputError
from gpurerank.evaluation.contenders import CascadeOf, FusionOf, Stage, default_specs, parse
from gpurerank.evaluation.wording import as_python, described, imports


def test_contenders_are_read() -> None:
    model, bi = Stage("cross-encoder", "m"), Stage("bi-encoder", "embedded")
    read = {spec: parse(spec, "m").plan for spec in PLANS}
    assert read["cross-encoder"] == model
    assert read["cross-encoder:a/b"] == Stage("cross-encoder", "a/b")
    assert read["http://host:8000/x"] == Stage("server", "http://host:8000/x")
    assert read["cascade"] == CascadeOf(bi, model, 20)
    assert read["cascade:7:bi-encoder:b+https://h"] == CascadeOf(
        Stage("bi-encoder", "b"), Stage("server", "https://h"), 7
    )
    assert read["rrf"] == FusionOf(((bi, 1.0), (model, 1.0)), "reciprocal", 1.0)
    assert read["rrf:first-stage+cross-encoder"] == FusionOf(((model, 1.0),), "reciprocal", 1.0)
    assert read["weighted:bi-encoder=0.3+cross-encoder:a/b=2"] == FusionOf(
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


def test_a_contender_is_told_as_python_and_in_words() -> None:
    for spec, expression in PLANS.items():
        contender = parse(spec, "m")
        assert as_python(contender) == expression
        for name in imports(contender).removeprefix("from gpurerank import ").split(", "):
            assert name in expression
        assert described(contender)


NO_CONTENDERS = (
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


def test_a_contender_that_is_none_is_told_the_forms() -> None:
    for spec in NO_CONTENDERS:
        with pytest.raises(InputError, match=r"it must be bi-encoder\[:MODEL\]"):
            parse(spec, "m")


def test_a_bi_encoder_first_stage_leaves_nothing_to_a_bi_encoder() -> None:
    assert default_specs(dense=False) == ["bi-encoder", "cross-encoder", "cascade:20", "rrf"]
    assert not any("bi-encoder" in spec or "cascade" in spec for spec in default_specs(dense=True))
