"""What the benchmark was asked for, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gpurerank.benchmark.texts import REALISTIC
from gpurerank.errors import InputError

SECTIONS = ("latency", "concurrency", "scaling", "overhead", "http", "ray")
DTYPES = ("auto", "float32", "bfloat16", "float16")
MOST_CANDIDATES = 100_000
MOST_CALLERS = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """One run of the benchmark.

    Attributes:
        models: Stand-ins ("tinybert-l2", "minilm-l6", "bge-m3"), "embedded", hub ids or folders;
            empty for those that suit the device.
        candidates: Passages of a call, ascending.
        lengths: "realistic", or tokens of every pair as digits.
        callers: At the same time, ascending.
        device: "auto" or a torch device.
        dtype: Of gpurerank and of the best setting of others.
        sections: Of ``SECTIONS``.
        rounds: Of a cell at most; None for 20 on a CPU and 50 on a GPU.
        limit_s: A cell that takes longer is skipped; a section gets eight times as much.
        soak_s: Of mixed calls at the end; 0 for none.
        output: Folder for the JSON and the pictures; None for none.
        quick: A small set that ends in about two minutes on two cores.
    """

    models: tuple[str, ...] = ()
    candidates: tuple[int, ...] = (10, 20, 50, 100, 1_000)
    lengths: tuple[str, ...] = (REALISTIC, "128", "256", "512")
    callers: tuple[int, ...] = (1, 8, 64)
    device: str = "auto"
    dtype: str = "auto"
    sections: tuple[str, ...] = ("latency", "concurrency")
    rounds: int | None = None
    limit_s: float = 45.0
    soak_s: float = 0.0
    output: Path | None = None
    quick: bool = False

    def check(self) -> None:
        """Checks what can be checked without a model.

        Raises:
            InputError: An option is out of range; says which.
        """
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype!r}; it must be one of {', '.join(DTYPES)}")
        if self.rounds is not None and self.rounds < 1:
            raise InputError(f"--rounds is {self.rounds}; it must be at least 1")
        if not self.limit_s > 0:
            raise InputError(f"--limit-s is {self.limit_s}; it must be over 0")
        if self.soak_s < 0:
            raise InputError(f"--soak is {self.soak_s}; it must be 0 or more seconds")
        unknown = [section for section in self.sections if section not in SECTIONS]
        if unknown:
            raise InputError(f"--sections has {unknown[0]!r}; it may have {', '.join(SECTIONS)}")
        if self.output is not None and self.output.exists() and not self.output.is_dir():
            raise InputError(f"--output is {str(self.output)!r}, a file; it must be a folder")

    def as_quick(self) -> BenchOptions:
        """The small set: what was not asked for otherwise is cut down."""
        default = BenchOptions()
        small = BenchOptions(
            candidates=(10, 20), lengths=(REALISTIC, "128"), callers=(1, 8), limit_s=18.0
        )
        changed = {
            name: getattr(small, name)
            for name in ("candidates", "lengths", "callers", "limit_s")
            if getattr(self, name) == getattr(default, name)
        }
        return replace(self, **changed)


def numbers(text: str, option: str, most: int = MOST_CANDIDATES) -> tuple[int, ...]:
    """Whole numbers from 1 on between commas, ascending, each once.

    Raises:
        InputError: Something else stands there.
    """
    found = set()
    for part in _parts(text, option):
        if not part.isdecimal() or not 1 <= int(part) <= most:
            raise InputError(f"{option} has {part!r}; it takes numbers from 1 to {most:,}")
        found.add(int(part))
    return tuple(sorted(found))


def lengths(text: str) -> tuple[str, ...]:
    """Kinds of lengths between commas: "realistic" and numbers of tokens, in the order given.

    Raises:
        InputError: Something else stands there.
    """
    found = _parts(text, "--lengths")
    for part in found:
        if part != REALISTIC and not (part.isdecimal() and 16 <= int(part) <= 512):
            raise InputError(
                f"--lengths has {part!r}; it takes 'realistic' and tokens a pair from 16 to 512"
            )
    return tuple(dict.fromkeys(found))


def sections(text: str) -> tuple[str, ...]:
    """Names between commas; ``BenchOptions.check`` knows which there are."""
    return tuple(dict.fromkeys(_parts(text, "--sections")))


def _parts(text: str, option: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise InputError(f"{option} is empty; leave it out for the default")
    return found
