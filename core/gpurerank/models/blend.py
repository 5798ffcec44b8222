"""A cross-encoder's logit blended with the cosine that a bi-encoder gives the same pair."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gpurerank.errors import WeightsError
from gpurerank.types import FloatArray

FILE_NAME = "blend.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """The logit of a blended model: ``scale`` * (its own + ``weight`` * (cosine - ``center``)).

    Such a cross-encoder ranks worse alone.

    Attributes:
        bi_encoder: "embedded", a folder or a hub id.
        weight: Logits that a cosine of 1 is worth.
        center: The cosine that says nothing either way.
        scale: Changes no order; what makes a score of 0.5 mean as likely as not.
    """

    bi_encoder: str = "embedded"
    weight: float
    center: float
    scale: float = 1.0

    def logits(self, own: FloatArray, cosines: FloatArray) -> FloatArray:
        """Blended logits, shape (pairs,), float32."""
        blended = self.scale * (own + self.weight * (cosines - self.center))
        return blended.astype(np.float32)

    def write(self, folder: Path) -> None:
        """Writes it beside a model's weights."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        (folder / FILE_NAME).write_text(text, encoding="utf-8")


def read_blend(path: Path) -> Blend:
    """What ``Blend.write`` wrote.

    Raises:
        WeightsError: The file cannot be read, or holds something else.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        numbers = {name: float(saved[name]) for name in ("weight", "center", "scale")}
        return Blend(bi_encoder=str(saved["bi_encoder"]), **numbers)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} does not say how to blend ({type(error).__name__}: {error}); it wants"
            " bi_encoder, weight, center and scale"
        ) from error
