"""A cross-encoder's logit blended with the similarity that a bi-encoder gives the same pair."""

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
    """The logit of a blended model: ``scale`` * (its own + ``weight`` * (similarity - ``center``)).

    Such a cross-encoder ranks worse alone.

    Attributes:
        bi_encoder: "embedded", a folder or a hub id.
        weight: Logits that a similarity of 1 is worth.
        token_share: Share of the similarity that comes from late interaction, in [0, 1]; the rest
            is the cosine of both vectors.
        center: The similarity that says nothing either way.
        scale: Changes no order; what makes a score of 0.5 mean as likely as not.
    """

    bi_encoder: str = "embedded"
    weight: float
    token_share: float = 0.0
    center: float
    scale: float = 1.0

    def similarities(self, cosines: FloatArray, late: FloatArray) -> FloatArray:
        """Cosines and late interaction as one similarity, shape (pairs,), float32."""
        both = (1.0 - self.token_share) * cosines + self.token_share * late
        return both.astype(np.float32)

    def logits(self, own: FloatArray, similarities: FloatArray) -> FloatArray:
        """Blended logits, shape (pairs,), float32."""
        blended = self.scale * (own + self.weight * (similarities - self.center))
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
        share = float(saved.get("token_share", 0.0))
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"token_share is {share}; it must be in [0, 1]")
        return Blend(bi_encoder=str(saved["bi_encoder"]), token_share=share, **numbers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} does not say how to blend ({type(error).__name__}: {error}); it wants"
            " bi_encoder, weight, center and scale"
        ) from error
