"""Contenders described in words, and as the Python code that builds them."""

from __future__ import annotations

from gpurerank.evaluation.contender_specs import (
    CascadePlan,
    Contender,
    FusionPlan,
    Plan,
    Stage,
    stages_of,
)
from gpurerank.types import Ranker

_CLASS_OF_KIND = {"bi-encoder": "BiEncoder", "cross-encoder": "Reranker", "server": "Reranker"}


def describe_contender(contender: Contender) -> str:
    """What a contender does, without a full stop at the end."""
    plan = contender.plan
    if plan is None:
        return "custom ranker" if isinstance(contender.subject, Ranker) else "custom pipeline"
    if isinstance(plan, Stage):
        if plan.kind == "provided":
            return "custom ranker"
        return f"{_stage_name(plan)} ranks the candidates"
    if isinstance(plan, CascadePlan):
        first = f"{_stage_name(plan.first)} keeps {plan.candidates} candidates"
        return f"{first}, {_stage_name(plan.second)} ranks those"
    names = [_stage_name(stage) for stage, _ in plan.members]
    if plan.method == "weighted":
        terms = [f"{weight:g} × {_stage_name(stage)}" for stage, weight in plan.members]
        return f"weighted sum of the scores, scaled to 0 to 1: {', '.join(terms)}"
    if plan.input_weight:
        names.insert(0, "the first stage")
    return f"reciprocal rank fusion of {', '.join(names)}"


def python_expression(contender: Contender) -> str:
    """The Python expression that builds the ranker; empty for an object of the caller."""
    plan = contender.plan
    # No expression can name an object that exists in the memory of the caller.
    if plan is None or any(stage.kind == "provided" for stage in stages_of(plan)):
        return ""
    return _plan_expression(plan)


def import_line(contender: Contender) -> str:
    """The import statement that ``python_expression`` needs."""
    plan = contender.plan
    if plan is None or not python_expression(contender):
        return ""
    names = {_CLASS_OF_KIND[stage.kind] for stage in stages_of(plan)}
    # A server is a RemoteScorer inside a Reranker.
    if any(stage.kind == "server" for stage in stages_of(plan)):
        names.add("RemoteScorer")
    if isinstance(plan, CascadePlan):
        names.add("Cascade")
    if isinstance(plan, FusionPlan):
        names.add("Fusion")
    return f"from gpurerank import {', '.join(sorted(names))}"


def _stage_name(stage: Stage) -> str:
    if stage.kind == "server":
        return f"the server {stage.model}"
    return f"the {stage.kind}" + ("" if stage.model == "embedded" else f" {stage.model}")


def _plan_expression(plan: Plan) -> str:
    if isinstance(plan, Stage):
        return _stage_expression(plan)
    if isinstance(plan, CascadePlan):
        stages = f"{_stage_expression(plan.first)}, {_stage_expression(plan.second)}"
        return f"Cascade({stages}, candidates={plan.candidates})"
    stages = ", ".join(_stage_expression(stage) for stage, _ in plan.members)
    if plan.method == "weighted":
        weights = ", ".join(f"{weight:g}" for _, weight in plan.members)
        return f'Fusion([{stages}], method="weighted", weights=[{weights}])'
    weight = f", input_weight={plan.input_weight:g}" if plan.input_weight else ""
    return f"Fusion([{stages}]{weight})"


def _stage_expression(stage: Stage) -> str:
    if stage.kind == "server":
        return f"Reranker.from_scorer(RemoteScorer({stage.model!r}), name={stage.model!r})"
    # "embedded" is the default of both classes.
    name = "" if stage.model == "embedded" else repr(stage.model)
    return f"{_CLASS_OF_KIND[stage.kind]}({name})"
