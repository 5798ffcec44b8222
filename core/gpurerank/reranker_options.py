"""What a Reranker is made with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gpurerank.cache import ScoreStore
from gpurerank.cross_encoder import LongPassages
from gpurerank.errors import InputError
from gpurerank.remote.address import check_local_options
from gpurerank.remote.scorer import RemoteScorer
from gpurerank.types import Secret

OnError = Literal["raise", "keep_order"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerOptions:
    """Every option of a Reranker; see there."""

    model: str = "embedded"
    device: str = "auto"
    dtype: str = "auto"
    max_length: int = 512
    long_passages: LongPassages = "windows"
    revision: str | None = None
    instruction: str | None = None
    positive_label: int | None = None
    timeout_s: float | None = None
    on_error: OnError = "raise"
    trust_remote_code: bool = False
    cache: ScoreStore | None = None
    base_url: str | None = None
    api_key: str | Secret | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: object) -> RerankerOptions:
        """The options that stand under the same names on another object, such as a plugin."""
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})

    def check(self) -> None:
        """Checks what can be checked without the model.

        Raises:
            InputError: An option is out of range.
        """
        if self.long_passages not in ("windows", "truncate"):
            raise InputError(
                f"long_passages is {self.long_passages!r}; it must be 'windows' or 'truncate'"
            )
        if self.on_error not in ("raise", "keep_order"):
            raise InputError(f"on_error is {self.on_error!r}; it must be 'raise' or 'keep_order'")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise InputError(f"timeout_s is {self.timeout_s}; it must be over 0, or None")
        if self.base_url is not None:
            self._check_remote()
        elif self.api_key is not None:
            raise InputError("api_key is given without base_url; name the server that takes it")

    def _check_remote(self) -> None:
        check_local_options(
            device=(self.device, "auto"),
            dtype=(self.dtype, "auto"),
            max_length=(self.max_length, 512),
            revision=(self.revision, None),
            instruction=(self.instruction, None),
            positive_label=(self.positive_label, None),
            trust_remote_code=(self.trust_remote_code, False),
        )

    def remote_scorer(self, base_url: str) -> RemoteScorer:
        """What scores on a server; "embedded", the default, is the model that it serves."""
        return RemoteScorer(
            base_url,
            api_key=self.api_key,
            model=None if self.model == "embedded" else self.model,
            truncate=self.long_passages == "truncate",
        )
