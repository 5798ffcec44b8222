"""What a training run came to, and the file that tells of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpurerank.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What a run came to.

    Attributes:
        model: Folder of the trained model, which Reranker and sentence-transformers load.
        training_lists: Lists that were learned from.
        held_out_lists: Lists that it is judged by; no list of theirs was learned from.
        bi_encoder: nDCG@10 of the bi-encoder's order of the held-out lists; None without any.
        before: The same of the base.
        after: The same of the trained model.
        notes: What each source gave, and what was left out.
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
        """What an earlier run wrote.

        Raises:
            DataError: The file is no report.
        """
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**told, "model": Path(told["model"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is no report of a run: {error}; delete it to go on") from error

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "model": str(self.model)}
