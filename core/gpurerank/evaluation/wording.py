"""Contenders in words for readers, and as the Python that makes them."""

from __future__ import annotations

from gpurerank.evaluation.contenders import CascadeOf, Contender, FusionOf, Plan, Stage, stages
from gpurerank.types import Ranker


def described(contender: Contender) -> str:
    """What a contender does, in a sentence without its end."""
    plan = contender.plan
    if plan is None:
        own = "a ranker" if isinstance(contender.subject, Ranker) else "a pipeline"
        return f"{own} of your own"
    if isinstance(plan, Stage):
        if plan.kind == "own":
            return "a ranker of your own"
        return f"{_named(plan)} ranks the candidates"
    if isinstance(plan, CascadeOf):
        kept = f"{_named(plan.first)} keeps {plan.candidates}"
        return f"{kept}, {_named(plan.second)} ranks those"
    parts = [_named(stage) for stage, _ in plan.members]
    if plan.method == "weighted":
        shares = [f"{weight:g} × {_named(stage)}" for stage, weight in plan.members]
        return f"the scores, stretched to 0 to 1, added up: {', '.join(shares)}"
    if plan.input_weight:
        parts.insert(0, "the first stage's order")
    return f"reciprocal ranks added up: {', '.join(parts)}"


def as_python(contender: Contender) -> str:
    """The expression that makes a contender's ranker; empty where it is the caller's own."""
    plan = contender.plan
    if plan is None or any(stage.kind == "own" for stage in stages(plan)):
        return ""
    return _expression(plan)


def imports(contender: Contender) -> str:
    """The import line that ``as_python`` needs."""
    plan = contender.plan
    if plan is None or not as_python(contender):
        return ""
    names = {_CLASS[stage.kind] for stage in stages(plan)}
    if any(stage.kind == "server" for stage in stages(plan)):
        names.add("RemoteScorer")
    if isinstance(plan, CascadeOf):
        names.add("Cascade")
    if isinstance(plan, FusionOf):
        names.add("Fusion")
    return f"from gpurerank import {', '.join(sorted(names))}"


_CLASS = {"bi-encoder": "BiEncoder", "cross-encoder": "Reranker", "server": "Reranker"}


def _named(stage: Stage) -> str:
    if stage.kind == "server":
        return f"the server {stage.model}"
    return f"the {stage.kind}" + ("" if stage.model == "embedded" else f" {stage.model}")


def _expression(plan: Plan) -> str:
    if isinstance(plan, Stage):
        return _maker(plan)
    if isinstance(plan, CascadeOf):
        parts = f"{_maker(plan.first)}, {_maker(plan.second)}"
        return f"Cascade({parts}, candidates={plan.candidates})"
    parts = ", ".join(_maker(stage) for stage, _ in plan.members)
    if plan.method == "weighted":
        weights = ", ".join(f"{weight:g}" for _, weight in plan.members)
        return f'Fusion([{parts}], method="weighted", weights=[{weights}])'
    weight = f", input_weight={plan.input_weight:g}" if plan.input_weight else ""
    return f"Fusion([{parts}]{weight})"


def _maker(stage: Stage) -> str:
    if stage.kind == "server":
        return f"Reranker.from_scorer(RemoteScorer({stage.model!r}), name={stage.model!r})"
    name = "" if stage.model == "embedded" else repr(stage.model)
    return f"{_CLASS[stage.kind]}({name})"
