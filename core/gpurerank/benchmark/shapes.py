"""How many operations a model's sizes ask for: the numerator of the floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PLAIN_ENCODERS = frozenset({"bert", "camembert", "roberta", "xlm-roberta"})


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of an encoder of BERT's kind under a head with one label."""

    layers: int
    hidden: int
    intermediate: int

    @classmethod
    def of(cls, config: Any) -> ModelShape | None:
        """The sizes in a transformers configuration; None for another kind of model."""
        if config.model_type not in PLAIN_ENCODERS:
            return None
        return cls(config.num_hidden_layers, config.hidden_size, config.intermediate_size)

    def operations(self, lengths: Sequence[int]) -> float:
        """Multiplications and additions that the scores of such sequences ask for.

        A sequence of t tokens through l layers of width h and inner width i takes

            linear layers   (l - 1) · 2 t (4 h² + 2 h i)   query, key, value, output; up, down
            attention       (l - 1) · 4 t² h               query times key, weights times value
            last layer      4 t h² + 4 h² + 4 h i          key and value of all tokens; the rest
                                                           of the first: no other is looked at
            its attention   4 t h                          the first token's to all
            head            2 (h² + h)                     dense or pooler, one label

        Padding is left out, as are softmax, normalization, activations and look-ups, which are
        bound by memory.
        """
        h, i = self.hidden, self.intermediate
        per_token = 2 * (4 * h * h + 2 * h * i)
        total = 0.0
        for length in lengths:
            total += (self.layers - 1) * (per_token * length + 4 * length * length * h)
            total += 4 * length * h * h + 4 * h * h + 4 * h * i + 4 * length * h
            total += 2 * (h * h + h)
        return total

    def products(self, rows: int) -> list[tuple[int, int, int]]:
        """The model's own matrix products for so many tokens: (rows, inner, columns)."""
        h, i = self.hidden, self.intermediate
        return [(rows, h, 3 * h), (rows, h, i), (rows, i, h)]
