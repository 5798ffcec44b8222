"""The result of a training run and the file that it is saved in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpurerank.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """The result of a training run.

    Attributes:
        model: Folder of the trained model, which Reranker and sentence-transformers load.
        training_lists: Number of lists trained on.
        held_out_lists: Number of lists evaluated on; none of their queries was trained on.
        bi_encoder: nDCG@10 of the bi-encoder on the held-out lists, in [0, 1]; None without any.
        before: nDCG@10 of the base.
        after: nDCG@10 of the trained model.
        notes: One line per source, and one per kind of fault in its files.
        log: Loss, learning rate and nDCG@10 by step.
    """

    model: Path
    training_lists: int
    held_out_lists: int
    bi_encoder: float | None
    before: float | None
    after: float | None
    notes: list[str]
    log: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> TrainReport:
        """Reads the report that an earlier run wrote.

        Raises:
            DataError: The file is not a report.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**values, "model": Path(values["model"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path} is not the report of a training run: {error}; delete it to continue the"
                " run"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**asdict(self), "model": str(self.model)}
