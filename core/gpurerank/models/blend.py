"""A cross-encoder's logit blended with the similarity that a bi-encoder gives the same pair."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gpurerank.errors import WeightsError
from gpurerank.types import BoolArray, FloatArray

FILE_NAME = "blend.json"
# No similarity is less.
READ_ALL = -1.0

_OPTIONAL = ("token_share", "least_similarity", "unread_logit")


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
        least_similarity: A pair less alike than this is not read by the cross-encoder, which could
            not bring it up: ``unread_logit`` stands for its own. ``READ_ALL`` has every pair read.
        unread_logit: See ``least_similarity``.
    """

    bi_encoder: str = "embedded"
    weight: float
    token_share: float = 0.0
    center: float
    scale: float = 1.0
    least_similarity: float = READ_ALL
    unread_logit: float = 0.0

    def similarities(self, cosines: FloatArray, late: FloatArray) -> FloatArray:
        """Cosines and late interaction as one similarity, shape (pairs,), float32."""
        both = (1.0 - self.token_share) * cosines + self.token_share * late
        return both.astype(np.float32)

    def worth_reading(self, similarities: FloatArray) -> BoolArray:
        """Which pairs the cross-encoder is asked about, shape (pairs,)."""
        found: BoolArray = similarities >= self.least_similarity
        return found

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
        numbers |= {name: float(saved[name]) for name in _OPTIONAL if name in saved}
        blend = Blend(bi_encoder=str(saved["bi_encoder"]), **numbers)
        if not 0.0 <= blend.token_share <= 1.0:
            raise ValueError(f"token_share is {blend.token_share}; it must be in [0, 1]")
        return blend
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} does not say how to blend ({type(error).__name__}: {error}); it wants"
            " bi_encoder, weight, center and scale"
        ) from error
