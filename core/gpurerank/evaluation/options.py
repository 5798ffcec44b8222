"""What can be asked of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpurerank.errors import InputError
from gpurerank.evaluation.contenders import Contender, Stage, parse
from gpurerank.evaluation.queries import Search
from gpurerank.evaluation.stages import Stages
from gpurerank.types import PairScorer, Ranker, TextEmbedder

Contenders = Sequence[str] | Mapping[str, "str | Ranker | Search"]

SHALLOWER = (10, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """How to compare.

    Attributes:
        depth: Candidates that a contender is given, for the main table.
        depths: Further depths, for the curve; none are 10 and 20 where ``depth`` is above.
        model: The cross-encoder of contenders that name none.
        device: As in ``Reranker``.
        dtype: As in ``Reranker``.
        seed: Of the order of queries, the test and the intervals.
    """

    depth: int = 50
    depths: tuple[int, ...] = ()
    model: str = "embedded"
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 0

    def check(self) -> None:
        """Checks what can be checked without a model.

        Raises:
            InputError: A depth is below 1.
        """
        for depth in (self.depth, *self.depths):
            if depth < 1:
                raise InputError(f"a depth is {depth}; it must be 1 or more")

    @property
    def all_depths(self) -> tuple[int, ...]:
        """Every depth, the shallowest first."""
        more = self.depths or tuple(depth for depth in SHALLOWER if depth < self.depth)
        return tuple(sorted({*more, self.depth}))


def resolve(contenders: Contenders, stages: Stages, model: str) -> list[Contender]:
    """The contenders, texts read, in the order given.

    A ranker that scores pairs, or embeds, takes part as a stage: its scores serve every depth.

    Raises:
        InputError: A text is no contender, a name stands twice, or something can rank nothing.
    """
    if isinstance(contenders, str):
        raise InputError("contenders is one text; give a list of them")
    if not isinstance(contenders, Mapping):
        contenders = {spec.strip(): spec for spec in contenders}
    found = []
    for name, subject in contenders.items():
        if isinstance(subject, str):
            found.append(Contender(name, parse(subject, model).subject))
        elif isinstance(subject, Ranker) and isinstance(subject, PairScorer | TextEmbedder):
            stage = Stage("own", name)
            stages.adopt(stage, subject)
            found.append(Contender(name, stage))
        elif isinstance(subject, Ranker) or callable(subject):
            found.append(Contender(name, subject))
        else:
            raise InputError(
                f"contender {name!r} is {type(subject).__name__}; it must be a text, a Ranker, or"
                " a search, such as as_search(…) of a plugin makes of a framework's retriever"
            )
    return found
