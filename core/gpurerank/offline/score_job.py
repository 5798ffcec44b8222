"""What a job is told: the input, the output, the columns, the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gpurerank.errors import InputError
from gpurerank.reranker_options import RerankerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where a row has what, and what its scores are called.

    Attributes:
        query: The query, a text.
        passage: The passage, a text; of inputs with one passage a row.
        candidates: The passages, a list of texts; of inputs with many passages a row. A row has
            ``passage`` or ``candidates``, as the whole input has.
        prefix: Stands before the names of the columns that are added: ``score`` and ``logit``, or
            ``scores`` and ``logits`` where a row has candidates, and ``error``.
        drop_text: Leave query and passages out of the output.
    """

    query: str = "query"
    passage: str = "passage"
    candidates: str = "candidates"
    prefix: str = ""
    drop_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreJob:
    """Scores every row of the input and writes it to the output.

    Attributes:
        inputs: Parquet or JSON lines files, folders of them, or addresses such as "s3://…".
        output: A folder; made where it is not there.
        columns: Names of columns.
        model: Which model scores, and how.
        rows_per_part: Rows that are written as one file, and done again where a job stops in their
            middle; None for a hundredth of the input within reason. Of JSON lines, about.
    """

    inputs: Sequence[str]
    output: str
    columns: Columns = field(default_factory=Columns)
    model: RerankerOptions = field(default_factory=RerankerOptions)
    rows_per_part: int | None = None

    def checked(self) -> ScoreJob:
        """The same, with what can be checked without reading.

        Raises:
            InputError: An option is wrong.
        """
        if isinstance(self.inputs, str) or not self.inputs:
            raise InputError("inputs must be a list of at least one file or folder")
        if self.rows_per_part is not None and self.rows_per_part < 1:
            raise InputError(f"rows_per_part is {self.rows_per_part}; it must be at least 1")
        if self.model.cache is not None or self.model.base_url is not None:
            raise InputError("a job scores with a model of its own: leave cache and base_url out")
        self.model.check()
        # A failing model must be seen: an order that is kept would be written as scores.
        return replace(self, inputs=tuple(self.inputs), model=replace(self.model, on_error="raise"))
