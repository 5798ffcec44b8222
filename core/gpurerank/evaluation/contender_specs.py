"""Contenders: the rankers that are compared, and the short specifications that name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gpurerank.cascade import Cascade
from gpurerank.errors import InputError
from gpurerank.evaluation.query_set import Search
from gpurerank.fusion import Fusion, Method
from gpurerank.types import PairScorer, Ranker, TextEmbedder

StageKind = Literal["bi-encoder", "cross-encoder", "server", "provided"]
# Specifications as on the command line, or anything that ranks, by name.
Contenders = Sequence[str] | Mapping[str, "str | Ranker | Search"]

FIRST_STAGE = "first-stage"
CASCADE_CANDIDATES = 20
SPEC_FORMS = (
    "bi-encoder[:MODEL], cross-encoder[:MODEL], cascade[:CANDIDATES], rrf[:PART+PART…],"
    " weighted:PART=WEIGHT+PART=WEIGHT or http://SERVER; a PART is bi-encoder[:MODEL],"
    " cross-encoder[:MODEL], a server or, in rrf, first-stage"
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One model of a plan.

    Attributes:
        kind: "provided" is a ranker that the caller passed as an object.
        model: Name or folder of a model, URL of a server, or the contender's name if provided.
    """

    kind: StageKind
    model: str


@dataclass(frozen=True, slots=True)
class CascadePlan:
    """The first stage keeps ``candidates`` passages and the second ranks those."""

    first: Stage
    second: Stage
    candidates: int


@dataclass(frozen=True, slots=True)
class FusionPlan:
    """Several stages whose rankings are combined.

    Attributes:
        members: Stages with their weights, each above 0.
        method: As in ``Fusion``.
        input_weight: Weight of the order in which the candidates come, 0 for none.
    """

    members: tuple[tuple[Stage, float], ...]
    method: Method
    input_weight: float


Plan = Stage | CascadePlan | FusionPlan


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that ranks, under a name.

    Attributes:
        name: Unique in an evaluation.
        subject: A plan, whose stages share their scores with other plans; a Ranker, which is
            called for every query and depth; or a pipeline, which is called once per query.
    """

    name: str
    subject: Plan | Ranker | Search

    @property
    def plan(self) -> Plan | None:
        """The plan; None for a Ranker or a pipeline."""
        return self.subject if isinstance(self.subject, Stage | CascadePlan | FusionPlan) else None


def build_ranker(plan: Plan, ranker_of: Callable[[Stage], Ranker]) -> Ranker:
    """The ranker of a plan, built from the rankers of its stages."""
    if isinstance(plan, Stage):
        return ranker_of(plan)
    if isinstance(plan, CascadePlan):
        return Cascade(ranker_of(plan.first), ranker_of(plan.second), plan.candidates)
    return Fusion(
        [ranker_of(stage) for stage, _ in plan.members],
        method=plan.method,
        weights=[weight for _, weight in plan.members],
        input_weight=plan.input_weight,
    )


def stages_of(plan: Plan) -> tuple[Stage, ...]:
    """The stages of a plan, in the order in which it names them."""
    if isinstance(plan, Stage):
        return (plan,)
    if isinstance(plan, CascadePlan):
        return (plan.first, plan.second)
    return tuple(stage for stage, _ in plan.members)


def default_specs(*, dense_first_stage: bool) -> list[str]:
    """The contenders that are compared by default.

    A bi-encoder adds nothing to a first stage that is one already.
    """
    if dense_first_stage:
        return ["cross-encoder", "rrf:first-stage+cross-encoder"]
    return ["bi-encoder", "cross-encoder", f"cascade:{CASCADE_CANDIDATES}", "rrf"]


def resolve_contenders(
    contenders: Contenders, default_model: str
) -> tuple[list[Contender], dict[Stage, Ranker]]:
    """Parses and checks contenders.

    Returns:
        The contenders in the given order, and the rankers that were passed as objects and can
        serve as a stage: their scores are computed once and used for every depth.

    Raises:
        InputError: A specification has none of the forms, or an object cannot rank.
    """
    if isinstance(contenders, str):
        raise InputError(f"contenders is the string {contenders!r}; pass a list of strings")
    if not isinstance(contenders, Mapping):
        contenders = {spec.strip(): spec for spec in contenders}
    # A mapping has unique names; of equal specifications in a list one remains.
    resolved: list[Contender] = []
    provided: dict[Stage, Ranker] = {}
    for name, subject in contenders.items():
        if isinstance(subject, str):
            resolved.append(Contender(name, parse_contender(subject, default_model).subject))
        # Only a ranker that scores each passage by itself gives one score for all depths.
        elif isinstance(subject, Ranker) and isinstance(subject, PairScorer | TextEmbedder):
            stage = Stage("provided", name)
            provided[stage] = subject
            resolved.append(Contender(name, stage))
        elif isinstance(subject, Ranker) or callable(subject):
            resolved.append(Contender(name, subject))
        else:
            raise InputError(
                f"contender {name!r} is {type(subject).__name__}; it must be a string, a Ranker, or"
                " a function from a question to (id, text, score) of each passage, such as"
                " as_search(…) of a plugin returns for a retriever"
            )
    return resolved, provided


def parse_contender(spec: str, default_model: str) -> Contender:
    """Parses a specification.

    Args:
        spec: One of ``SPEC_FORMS``.
        default_model: The cross-encoder where the specification names none.

    Raises:
        InputError: It has none of the forms.
    """
    text = spec.strip()
    # Only up to the first colon: a model may be a URL or a path with further ones.
    kind, _, rest = text.partition(":")
    try:
        if kind == "cascade":
            plan: Plan = _parse_cascade(rest, default_model)
        elif kind in ("rrf", "fusion"):
            parts = rest or "first-stage+bi-encoder+cross-encoder"
            plan = _parse_reciprocal(parts, default_model)
        elif kind == "weighted":
            plan = _parse_weighted(rest, default_model)
        else:
            plan = _parse_stage(text, default_model)
    except ValueError as error:
        raise InputError(f"contender {spec!r}: {error}; it must be {SPEC_FORMS}") from error
    return Contender(text, plan)


def _parse_stage(text: str, default_model: str) -> Stage:
    if text.startswith(("http://", "https://")):
        return Stage("server", text)
    kind, _, name = text.partition(":")
    if kind == "bi-encoder":
        return Stage("bi-encoder", name or "embedded")
    if kind == "cross-encoder":
        return Stage("cross-encoder", name or default_model)
    raise ValueError(f"{text!r} is not a model")


def _parse_cascade(rest: str, default_model: str) -> CascadePlan:
    count, _, parts = rest.partition(":")
    candidates = int(count) if count else CASCADE_CANDIDATES
    if candidates < 1:
        raise ValueError(f"a cascade cannot keep {candidates} candidates; the minimum is 1")
    first, _, second = (parts or "bi-encoder+cross-encoder").partition("+")
    return CascadePlan(
        _parse_stage(first, default_model), _parse_stage(second, default_model), candidates
    )


def _parse_reciprocal(parts: str, default_model: str) -> FusionPlan:
    names = parts.split("+")
    members = tuple(
        (_parse_stage(part, default_model), 1.0) for part in names if part != FIRST_STAGE
    )
    if not members or len(names) < 2:
        raise ValueError("a fusion needs two parts, at least one of them a model")
    return FusionPlan(members, "reciprocal", float(names.count(FIRST_STAGE)))


def _parse_weighted(parts: str, default_model: str) -> FusionPlan:
    members = []
    for part in parts.split("+"):
        # From the right: the URL of a server may have an equals sign.
        text, _, weight_text = part.rpartition("=")
        # The first stage has an order but no scores that could be weighted.
        if not text or text == FIRST_STAGE:
            raise ValueError(f"{part!r} is not PART=WEIGHT")
        weight = float(weight_text)
        if not 0 < weight < float("inf"):
            raise ValueError(f"the weight {weight_text} must be finite and above 0")
        members.append((_parse_stage(text, default_model), weight))
    if len(members) < 2:
        raise ValueError("a fusion needs two parts")
    return FusionPlan(tuple(members), "weighted", 0.0)
