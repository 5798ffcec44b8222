"""Options of a benchmark run, and the parser of comma-separated ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gpurerank.benchmark.synthetic_text import REALISTIC
from gpurerank.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """Options of one benchmark run, named as those of ``gpurerank bench``.

    ``lengths`` holds "realistic" or tokens per pair as digits. ``rounds`` is None for at most 20
    rounds per measurement on a CPU and 50 on a GPU.
    """

    models: tuple[str, ...] = ("embedded",)
    candidates: tuple[int, ...] = (10, 20, 50, 100, 1_000)
    lengths: tuple[str, ...] = (REALISTIC,)
    device: str = "auto"
    dtype: str = "auto"
    rounds: int | None = None
    limit_s: float = 45.0
    output: Path | None = None

    def reduced(self) -> BenchOptions:
        """The options of ``--quick``: smaller defaults; values that differ from a default stay."""
        default = BenchOptions()
        return replace(
            self,
            candidates=(10, 20) if self.candidates == default.candidates else self.candidates,
            limit_s=18.0 if self.limit_s == default.limit_s else self.limit_s,
        )


def parse_numbers(
    text: str, option: str, minimum: int, maximum: int, word: str | None = None
) -> tuple[str, ...]:
    """Splits a comma-separated option into distinct numbers, as digits, or a certain word.

    Raises:
        InputError: A part is something else, or there is none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError(f"{option} is empty; omit it to use the default")
    for part in parts:
        if part != word and not (part.isdecimal() and minimum <= int(part) <= maximum):
            allowed = f"numbers from {minimum} to {maximum:,}" + (f" and {word!r}" if word else "")
            raise InputError(f"{option} has {part!r}; it takes {allowed}")
    return tuple(dict.fromkeys(parts))
