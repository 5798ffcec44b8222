"""Running a job of files on a cluster: Ray Data hands its parts to a pool of actors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import ray.data
from ray.exceptions import RayError

from gpurerank import errors
from gpurerank.cluster.connection import Replicas, join
from gpurerank.errors import GPURerankError, ScoringError
from gpurerank.offline.input_files import Part
from gpurerank.offline.job_runner import Executor, PreparedJob
from gpurerank.offline.row_scoring import Counts
from gpurerank.reranker import Reranker

# Ray Data keeps some state of every block; a part is small enough to share one.
_MOST_BLOCKS = 10_000


class _PartScorer:
    """An actor: one copy of the model, a part at a time. Only what was counted travels back."""

    def __init__(self, prepared: PreparedJob) -> None:
        self._prepared = prepared
        self._reranker: Reranker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Scores the one part of a batch."""
        part = Part(**{name: values.tolist()[0] for name, values in batch.items()})
        counts, failure = Counts(), ["", ""]
        try:
            counts = self._prepared.score_part(part, self._loaded())
        except GPURerankError as error:
            failure = [type(error).__name__, str(error)]
        told = {**asdict(part), **asdict(counts), "failure": failure[0], "message": failure[1]}
        return {name: np.array([value]) for name, value in told.items()}

    def _loaded(self) -> Reranker:
        # Not in the constructor: of what fails there Ray tells a long story, or tries again.
        if self._reranker is None:
            self._reranker = Reranker.from_options(self._prepared.job.model)
        return self._reranker


def on_ray(replicas: Replicas, address: str | None = None) -> Executor:
    """An executor on a cluster, for ``score_files``. Every node must reach the input and output.

    An actor or a node that is lost comes back, and what it was at is done again; a part that
    ends its process each time fails the job, see ``OutputFolder.open_part``.

    Args:
        replicas: Actors and what each takes.
        address: As ``RayScorer`` has it.
    """

    def execute(prepared: PreparedJob, parts: list[Part]) -> Iterator[tuple[Part, Counts]]:
        replicas.check()
        join(address)
        fitted = replicas.fitted()
        with _quiet():
            told = ray.data.from_items(
                [asdict(part) for part in parts],
                override_num_blocks=min(len(parts), _MOST_BLOCKS),
            ).map_batches(
                _PartScorer,
                fn_constructor_args=(prepared,),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=min(fitted.count, len(parts))),
                num_cpus=fitted.num_cpus,
                num_gpus=fitted.num_gpus or None,
            )
            try:
                for row in told.iter_rows():
                    yield _result(row)
            except RayError as error:
                raise ScoringError(
                    f"the cluster failed: {type(error).__name__}; what is written stays, and the"
                    " same job goes on from there"
                ) from error

    return execute


def _result(row: dict[str, Any]) -> tuple[Part, Counts]:
    if row["failure"]:
        kind = getattr(errors, row["failure"], ScoringError)
        raise kind(row["message"])
    part = Part(row["number"], row["path"], row["start"], row["stop"])
    return part, Counts(row["rows"], row["failed"], row["pairs"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data tells nothing of its own meanwhile but errors: the job says how far it is."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.print_on_execution_start, logger.level
    context.enable_progress_bars = context.print_on_execution_start = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start, level = before
        logger.setLevel(level)
