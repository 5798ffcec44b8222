"""The options of the plugins' rerankers as pydantic fields, declared once for every framework."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from gpurerank.cache import ScoreStore
from gpurerank.copying import deep_copy
from gpurerank.reranker import Reranker
from gpurerank.reranker_options import RerankerOptions
from gpurerank.types import CutOff, RankedPassage, Ranker

Item = TypeVar("Item", bound=BaseModel)


class RerankSettings(BaseModel):
    """What a plugin's reranker can be told; pydantic comes with the framework.

    Attributes:
        top_n: Returned at most; None for all.
        threshold: Lowest score that is returned.
        cut_off: ``LargestGap()`` or ``TokenBudget(max_tokens=...)``.
        ranker: What ranks, such as a Cascade or a Reranker of your own; then the options below
            are not used. It and all below are fixed once the model is loaded.
        model: "embedded", a folder or a hub id; this and all below as in ``gpurerank.Reranker``.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    top_n: int | None = Field(default=5, ge=0)
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    cut_off: CutOff | None = None
    ranker: Ranker | None = Field(default=None, frozen=True, exclude=True)
    model: str = Field(default="embedded", frozen=True)
    device: str = Field(default="auto", frozen=True)
    dtype: str = Field(default="auto", frozen=True)
    max_length: int = Field(default=512, frozen=True)
    long_passages: Literal["windows", "truncate"] = Field(default="windows", frozen=True)
    revision: str | None = Field(default=None, frozen=True)
    instruction: str | None = Field(default=None, frozen=True)
    positive_label: int | None = Field(default=None, frozen=True)
    timeout_s: float | None = Field(default=None, frozen=True)
    on_error: Literal["raise", "keep_order"] = Field(default="raise", frozen=True)
    trust_remote_code: bool = Field(default=False, frozen=True)
    cache: ScoreStore | None = Field(default=None, frozen=True, exclude=True)
    base_url: str | None = Field(default=None, frozen=True)
    # Excluded: a dump would hold stars, and what is read from it ask with them.
    api_key: SecretStr | None = Field(default=None, frozen=True, exclude=True)

    _ranker: Ranker = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Loads the model, so that a wrong name fails here and not in the first query."""
        super().model_post_init(context)
        self._ranker = self.ranker or Reranker.from_options(RerankerOptions.of(self))

    def _rank(self, query: str, passages: list[str], top_n: int | None) -> list[RankedPassage]:
        return self._ranker.rank(query, passages, top_n, self.threshold, cut_off=self.cut_off)

    async def _arank(
        self, query: str, passages: list[str], top_n: int | None
    ) -> list[RankedPassage]:
        return await self._ranker.arank(
            query, passages, top_n, self.threshold, cut_off=self.cut_off
        )

    @staticmethod
    def _copy_item(item: Item) -> Item:
        """Copies a framework's object with everything mutable inside it."""
        twin = item.model_copy()
        # Past validation, as ``model_copy`` itself writes: the values were valid before.
        fields = vars(twin)
        for name, value in fields.items():
            fields[name] = deep_copy(value)
        return twin
