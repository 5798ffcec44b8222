"""Training lists: a query, passages to order, and all that is known of their order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gpurerank.models.blend import Blend
from gpurerank.types import FloatArray


@dataclass(frozen=True, slots=True)
class TrainingList:
    """One query and the passages to order; every tuple has one value a passage.

    Attributes:
        query: What is asked.
        passages: What is ordered, positives first.
        grades: 0 for a negative, over 0 for a positive; all 0 in a list without labels, from which
            only the teacher teaches.
        similarities: The bi-encoder's cosines.
        teacher: The teacher's logits.
        late: Late interaction of the query with each; empty where no blend asks for it.
    """

    query: str
    passages: tuple[str, ...]
    grades: tuple[float, ...]
    similarities: tuple[float, ...]
    teacher: tuple[float, ...]
    late: tuple[float, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether a passage is known to be relevant."""
        return any(grade > 0 for grade in self.grades)

    def blended(self, blend: Blend | None) -> FloatArray:
        """What a blend takes for the similarity of each passage; the cosine without one."""
        cosines = np.array(self.similarities, np.float32)
        if blend is None or not blend.token_share:
            return cosines
        return blend.similarities(cosines, np.array(self.late, np.float32))


def write_lists(path: Path, lists: Iterable[TrainingList]) -> int:
    """Writes lists as JSON lines, whole or not at all; returns how many."""
    partial = path.with_suffix(".partial")
    count = 0
    with partial.open("w", encoding="utf-8") as out:
        for count, training_list in enumerate(lists, 1):  # noqa: B007
            out.write(json.dumps(asdict(training_list)) + "\n")
    partial.replace(path)
    return count


def read_lists(path: Path) -> Iterator[TrainingList]:
    """Reads what ``write_lists`` wrote."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            query = row.pop("query")
            yield TrainingList(query, **{name: tuple(values) for name, values in row.items()})
