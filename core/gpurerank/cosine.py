"""Cosine similarity: the arithmetic that ranking, blending and training share."""

from __future__ import annotations

import numpy as np

from gpurerank.types import FloatArray

# A vector shorter than this is treated as zero: its cosine with anything is near 0, never NaN.
_SHORTEST_LENGTH = 1e-12


def unit_vectors(vectors: FloatArray) -> FloatArray:
    """Scales vectors to length 1, so that a dot product of two is their cosine.

    Bi-encoders with a ``Normalize`` module return unit vectors already; others do not, and a plain
    dot product of theirs lies far outside [-1, 1].

    Args:
        vectors: Shape (..., dim), float32.

    Returns:
        A new array of the same shape, float32; a zero vector stays zero.

    Example:
        >>> import numpy as np
        >>> unit_vectors(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)  # (..., 1)
    return np.asarray(vectors / np.maximum(lengths, _SHORTEST_LENGTH), dtype=np.float32)
