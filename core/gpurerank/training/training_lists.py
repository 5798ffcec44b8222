"""Training lists: a query with passages to rank, and everything the losses need about them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from gpurerank.late_interaction import LateInteraction
from gpurerank.models.blend import Blend
from gpurerank.ranking import logit_of
from gpurerank.types import FloatArray, PairScorer


@dataclass(frozen=True, slots=True)
class TrainingList:
    """One query and the passages to rank; every tuple has one value per passage.

    Attributes:
        query: The query.
        passages: The passages, positives first.
        grades: 0 for a negative, over 0 for a positive. All 0 in an unlabelled list, on which only
            the teacher trains.
        similarities: Cosines of query and passage, in [-1, 1], as the served model computes them.
        teacher: Logits of the teacher.
        late: Late interaction, in [-1, 1]; empty unless the blend uses it.
    """

    query: str
    passages: tuple[str, ...]
    grades: tuple[float, ...]
    similarities: tuple[float, ...]
    teacher: tuple[float, ...]
    late: tuple[float, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether at least one passage is known to be relevant."""
        return any(grade > 0 for grade in self.grades)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The query paired with each passage."""
        return [(self.query, passage) for passage in self.passages]

    def blend_similarities(self, blend: Blend | None) -> FloatArray:
        """Similarities as the blend weighs them, shape (passages,); cosines without a blend."""
        cosines = np.array(self.similarities, np.float32)
        if blend is None or not blend.token_share:
            return cosines
        return blend.similarities(cosines, np.array(self.late, np.float32))


def with_teacher_logits(lists: Sequence[TrainingList], teacher: PairScorer) -> list[TrainingList]:
    """Replaces the teacher's logits by those of another scorer."""
    scores = teacher.score_pairs([pair for training_list in lists for pair in training_list.pairs])
    logits = map(logit_of, scores)
    return [
        replace(training_list, teacher=tuple(islice(logits, len(training_list.passages))))
        for training_list in lists
    ]


def with_late_interaction(
    lists: Sequence[TrainingList], late_interaction: LateInteraction
) -> list[TrainingList]:
    """Adds late interaction, and replaces the cosines by those that are served along with it.

    A blend with late interaction reads more of a long passage than the bi-encoder that mined it.
    """
    pairs = [pair for training_list in lists for pair in training_list.pairs]
    rows = late_interaction.similarities(pairs)  # two arrays, (pairs,)
    cosines, late = (iter(row.tolist()) for row in rows)
    return [
        replace(
            training_list,
            similarities=tuple(islice(cosines, len(training_list.passages))),
            late=tuple(islice(late, len(training_list.passages))),
        )
        for training_list in lists
    ]


def write_lists(path: Path, lists: Iterable[TrainingList]) -> None:
    """Writes lists as JSON lines; the file appears complete or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as out:
        for training_list in lists:
            out.write(json.dumps(asdict(training_list)) + "\n")
    # Atomic: a killed run leaves no truncated file under the final name.
    partial.replace(path)


def read_lists(path: Path) -> Iterator[TrainingList]:
    """Reads the lists that ``write_lists`` wrote."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            query = row.pop("query")
            yield TrainingList(query, **{name: tuple(values) for name, values in row.items()})
