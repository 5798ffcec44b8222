"""Options of an offline scoring job: the input, the output, the columns and the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpurerank.errors import InputError
from gpurerank.reranker_options import RerankerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of the columns that are read and written.

    Attributes:
        query: Input column with the query.
        passage: Input column with one passage per row.
        candidates: Input column with a list of passages per row. The input has either ``passage``
            or ``candidates``.
        prefix: Prefix of the output columns: ``score`` and ``logit``, or ``scores`` and ``logits``
            for candidates, and ``error``.
        drop_text: Leave the query and the passages out of the output.
    """

    query: str = "query"
    passage: str = "passage"
    candidates: str = "candidates"
    prefix: str = ""
    drop_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreJob:
    """A job that scores every row of the input and writes it to the output.

    Attributes:
        inputs: Parquet or JSON lines files, folders of them, or addresses such as "s3://…".
        output: Output folder; it is created if it does not exist.
        columns: Column names.
        model: Model and its options.
        rows_per_part: Rows per output file, approximate for JSON lines; a part is repeated if the
            job is interrupted in it. None for a hundredth of the input, within limits.

    Example:
        >>> job = ScoreJob(inputs=["pairs.parquet"], output="scores")
        >>> job.columns.query, job.model.model
        ('query', 'embedded')
    """

    inputs: Sequence[str]
    output: str
    columns: Columns = field(default_factory=Columns)
    model: RerankerOptions = field(default_factory=RerankerOptions)
    rows_per_part: int | None = None

    def check(self) -> None:
        """Checks everything that needs neither input nor model.

        Raises:
            InputError: An option is wrong.
        """
        if isinstance(self.inputs, str) or not self.inputs:
            raise InputError("inputs must be a list of at least one file or folder")
        if self.rows_per_part is not None and self.rows_per_part < 1:
            raise InputError(f"rows_per_part is {self.rows_per_part}; it must be at least 1")
        if self.model.cache is not None or self.model.base_url is not None:
            raise InputError("a job loads the model itself; leave cache and base_url out")
        self.model.check()
