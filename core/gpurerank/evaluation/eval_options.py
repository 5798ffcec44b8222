"""Options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from gpurerank.errors import InputError

# Where a curve over the number of candidates bends for most collections.
SHALLOW_DEPTHS = (10, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """How contenders are compared.

    Attributes:
        depth: Candidates per query that each contender reranks, for the main table; 1 or more.
        depths: Further depths to compare. Empty for 10 and 20, as far as they are below ``depth``.
        model: Cross-encoder of contenders that name none.
        device: As in ``Reranker``.
        dtype: As in ``Reranker``.
        seed: Of the order of the queries, the randomisation test and the bootstrap.

    Example:
        >>> from gpurerank.evaluation import EvalOptions
        >>> EvalOptions(depth=50).all_depths
        (10, 20, 50)
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
        """Every depth, ascending."""
        more = self.depths or tuple(depth for depth in SHALLOW_DEPTHS if depth < self.depth)
        return tuple(sorted({*more, self.depth}))
