"""What is wrong with data: counted and shown by its first places, never swallowed."""

from __future__ import annotations

from dataclasses import dataclass, field

EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Attributes:
        what: The kind, in the singular, such as "judgement of an unknown document".
        consequence: What became of each, such as "left out".
        count: How many there are.
        examples: The first places, such as "test.tsv:12: 'd9'".
    """

    what: str
    consequence: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = "; …" if self.count > len(self.examples) else ""
        return f"{self.what}, {self.consequence}: {self.count:,} ({'; '.join(self.examples)}{more})"


@dataclass(slots=True)
class FaultCounter:
    """Counts faults by kind, in the order in which each kind was first met."""

    _found: dict[tuple[str, str], tuple[int, list[str]]] = field(default_factory=dict)

    def add(self, what: str, consequence: str, example: str) -> None:
        """Counts one more fault of a kind."""
        count, examples = self._found.get((what, consequence), (0, []))
        if count < EXAMPLES:
            examples.append(example)
        self._found[what, consequence] = (count + 1, examples)

    def faults(self) -> tuple[Fault, ...]:
        """What was counted so far."""
        return tuple(
            Fault(what, consequence, count, tuple(examples))
            for (what, consequence), (count, examples) in self._found.items()
        )


def told(faults: tuple[Fault, ...]) -> str:
    """Faults as the end of an error's sentence; empty where there is none."""
    return "".join(f"; {fault}" for fault in faults)
