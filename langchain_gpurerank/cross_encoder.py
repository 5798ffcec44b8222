"""LangChain's cross-encoder interface over a reranker."""

from __future__ import annotations

from typing import Literal

from langchain_core.cross_encoders import BaseCrossEncoder
from pydantic import SecretStr

from gpurerank import Reranker


class GPUCrossEncoder(BaseCrossEncoder):
    """Scores pairs of texts, each in [0, 1].

    Args:
        model: "embedded", a folder or a hub id; this and all below as in ``gpurerank.Reranker``.
        device: "auto" or a torch device.
        dtype: "auto", "float32", "bfloat16" or "float16".
        max_length: Tokens of a pair.
        long_passages: "windows" or "truncate".
        revision: Branch, tag or commit on the hub.
        instruction: Prompt, for models that take one.
        positive_label: Which of two labels means relevant.
        trust_remote_code: Whether code from the model's repository may run.
        base_url: A server that scores in place of a model in this process.
        api_key: Of that server.
    """

    def __init__(
        self,
        model: str = "embedded",
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_length: int = 512,
        long_passages: Literal["windows", "truncate"] = "windows",
        revision: str | None = None,
        instruction: str | None = None,
        positive_label: int | None = None,
        trust_remote_code: bool = False,
        base_url: str | None = None,
        api_key: str | SecretStr | None = None,
    ) -> None:
        self._reranker = Reranker(
            model,
            device=device,
            dtype=dtype,
            max_length=max_length,
            long_passages=long_passages,
            revision=revision,
            instruction=instruction,
            positive_label=positive_label,
            trust_remote_code=trust_remote_code,
            base_url=base_url,
            api_key=api_key,
        )

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """The score of each (query, passage), in [0, 1], input order."""
        return self._reranker.score_pairs(text_pairs)
