"""What is compared: rankers made of stages, written as short texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gpurerank.cascade import Cascade
from gpurerank.errors import InputError
from gpurerank.evaluation.queries import Search
from gpurerank.fusion import Fusion, Method
from gpurerank.types import Ranker

Kind = Literal["bi-encoder", "cross-encoder", "server", "own"]

FIRST_STAGE = "first-stage"
CANDIDATES = 20
FORMS = (
    "bi-encoder[:MODEL], cross-encoder[:MODEL], cascade[:CANDIDATES], rrf[:PART+PART…],"
    " weighted:PART=WEIGHT+PART=WEIGHT or http://SERVER; a PART is bi-encoder[:MODEL],"
    " cross-encoder[:MODEL], a server or, in rrf, first-stage"
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One model: by name, a server by its address, the caller's own by the contender's name."""

    kind: Kind
    model: str


@dataclass(frozen=True, slots=True)
class CascadeOf:
    """The first stage keeps so many candidates and the second ranks them."""

    first: Stage
    second: Stage
    candidates: int


@dataclass(frozen=True, slots=True)
class FusionOf:
    """Stages with their weights; ``input_weight`` is that of the first stage's order."""

    members: tuple[tuple[Stage, float], ...]
    method: Method
    input_weight: float


Plan = Stage | CascadeOf | FusionOf


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that ranks, under a name.

    Attributes:
        name: Unique in a report.
        subject: A plan of stages, which share their work with other plans; a Ranker of the caller's
            own, called for each query and depth; or a whole pipeline, called once a query.
    """

    name: str
    subject: Plan | Ranker | Search

    @property
    def plan(self) -> Plan | None:
        """The plan, where it is one."""
        return self.subject if isinstance(self.subject, Stage | CascadeOf | FusionOf) else None


def build(plan: Plan, ranker_of: Callable[[Stage], Ranker]) -> Ranker:
    """The ranker of a plan, out of those of its stages."""
    if isinstance(plan, Stage):
        return ranker_of(plan)
    if isinstance(plan, CascadeOf):
        return Cascade(ranker_of(plan.first), ranker_of(plan.second), plan.candidates)
    return Fusion(
        [ranker_of(stage) for stage, _ in plan.members],
        method=plan.method,
        weights=[weight for _, weight in plan.members],
        input_weight=plan.input_weight,
    )


def stages(plan: Plan) -> tuple[Stage, ...]:
    """The stages of a plan."""
    if isinstance(plan, Stage):
        return (plan,)
    if isinstance(plan, CascadeOf):
        return (plan.first, plan.second)
    return tuple(stage for stage, _ in plan.members)


def default_specs(*, dense: bool) -> list[str]:
    """What is compared where nothing is asked for.

    A first stage that is a bi-encoder already leaves nothing to another one.
    """
    if dense:
        return ["cross-encoder", "rrf:first-stage+cross-encoder"]
    return ["bi-encoder", "cross-encoder", f"cascade:{CANDIDATES}", "rrf"]


def parse(spec: str, model: str) -> Contender:
    """Reads a contender.

    Args:
        spec: One of ``FORMS``.
        model: The cross-encoder where the text names none.

    Raises:
        InputError: It is none of the forms.
    """
    text = spec.strip()
    kind, _, rest = text.partition(":")
    try:
        if kind == "cascade":
            plan: Plan = _cascade(rest, model)
        elif kind in ("rrf", "fusion"):
            plan = _reciprocal(rest or "first-stage+bi-encoder+cross-encoder", model)
        elif kind == "weighted":
            plan = _weighted(rest, model)
        else:
            plan = _stage(text, model)
    except ValueError as error:
        raise InputError(f"contender {spec!r}: {error}; it must be {FORMS}") from error
    return Contender(text, plan)


def _stage(text: str, model: str) -> Stage:
    if text.startswith(("http://", "https://")):
        return Stage("server", text)
    kind, _, name = text.partition(":")
    if kind == "bi-encoder":
        return Stage("bi-encoder", name or "embedded")
    if kind == "cross-encoder":
        return Stage("cross-encoder", name or model)
    raise ValueError(f"{text!r} is no model")


def _cascade(rest: str, model: str) -> CascadeOf:
    count, _, parts = rest.partition(":")
    candidates = int(count) if count else CANDIDATES
    if candidates < 1:
        raise ValueError(f"{candidates} candidates are too few")
    first, _, second = (parts or "bi-encoder+cross-encoder").partition("+")
    return CascadeOf(_stage(first, model), _stage(second, model), candidates)


def _reciprocal(parts: str, model: str) -> FusionOf:
    named = parts.split("+")
    members = tuple((_stage(part, model), 1.0) for part in named if part != FIRST_STAGE)
    if not members or len(named) < 2:
        raise ValueError("a fusion needs two parts, one of them a model")
    return FusionOf(members, "reciprocal", float(named.count(FIRST_STAGE)))


def _weighted(parts: str, model: str) -> FusionOf:
    members = []
    for part in parts.split("+"):
        text, _, weight = part.rpartition("=")
        if not text or text == FIRST_STAGE:
            raise ValueError(f"{part!r} is no PART=WEIGHT")
        value = float(weight)
        if not 0 < value < float("inf"):
            raise ValueError(f"the weight {weight} must be over 0")
        members.append((_stage(text, model), value))
    if len(members) < 2:
        raise ValueError("a fusion needs two parts")
    return FusionOf(tuple(members), "weighted", 0.0)
