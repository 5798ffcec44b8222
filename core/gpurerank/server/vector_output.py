"""Embeddings as APIs return them: shortened, quantised, and as numbers or base64."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpurerank.bi_encoder import BiEncoder
from gpurerank.server.refusal import Refusal
from gpurerank.types import FloatArray

VectorType = Literal["float", "int8", "uint8", "binary", "ubinary"]
# Components of a unit vector have a standard deviation of about 1 / sqrt(dim); what lies beyond so
# many of them is clipped. The scale depends on the length alone, so that vectors of different
# requests can be compared.
_CLIPPED_DEVIATIONS = 6.0


def check_dimensions(encoder: BiEncoder, dimensions: int | None, field: str) -> None:
    """Checks before any work that a model's vectors can have a length.

    Raises:
        Refusal: The model does not say that its vectors can be shortened to it.
    """
    if dimensions is None or dimensions == encoder.dim or dimensions in encoder.matryoshka_dims:
        return
    if dimensions > encoder.dim or encoder.matryoshka_dims:
        shorter = ", ".join(map(str, encoder.matryoshka_dims[:16])) or "none shorter"
        reason = f"vectors of this model have {encoder.dim} dimensions ({shorter})"
    else:
        reason = (
            f"vectors of this model have {encoder.dim} dimensions and cannot be shortened: its"
            " configuration declares no Matryoshka dimensions"
        )
    raise Refusal(422, f"{field}: {dimensions} is not possible; {reason}", "invalid")


def shorten(vectors: FloatArray, dimensions: int | None) -> FloatArray:
    """The first components of each vector, scaled to length 1 again; shape (texts, dimensions)."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    return normalize(vectors[:, :dimensions])


def normalize(vectors: FloatArray) -> FloatArray:
    """Vectors of length 1."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


def quantize(vectors: FloatArray, kind: VectorType) -> NDArray[Any]:
    """Vectors in a smaller type, with the conventions of sentence-transformers.

    ``ubinary`` packs the signs of eight components into a byte, the first in its highest bit;
    ``binary`` is that minus 128. ``int8`` is ``round(127 * x / limit)`` of the unit vector,
    clipped, with ``limit = min(1, 6 / sqrt(dim))``; ``uint8`` is that plus 128.
    """
    if kind == "float":
        return vectors
    if kind in ("binary", "ubinary"):
        packed = np.packbits(vectors > 0, axis=1)
        if kind == "ubinary":
            return packed
        return np.asarray(packed.astype(np.int16) - 128, dtype=np.int8)
    limit = min(1.0, _CLIPPED_DEVIATIONS / float(np.sqrt(vectors.shape[1])))
    levels = np.clip(np.rint(normalize(vectors) * (127.0 / limit)), -128, 127).astype(np.int16)
    if kind == "int8":
        return np.asarray(levels, dtype=np.int8)
    return np.asarray(levels + 128, dtype=np.uint8)


def encode(vectors: NDArray[Any], encoding: str | None) -> list[Any]:
    """Rows as arrays of numbers, or as base64 of their bytes; floats are little-endian float32."""
    if encoding != "base64":
        return list(vectors)
    rows = vectors.astype("<f4") if vectors.dtype == np.float32 else vectors
    return [base64.b64encode(row.tobytes()).decode() for row in rows]
