"""The check at load time that decides whether a model runs packed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gpurerank.models.attention import PACKED_ATTENTION, packed_attention_available
from gpurerank.models.devices import dtype_name
from gpurerank.models.encoder import PackedEncoder
from gpurerank.types import FloatArray

# Of all scores together, or of a vector: 0.04 is a cosine of 0.9992.
_HALF_TOLERANCE = 0.04

logger = logging.getLogger("gpurerank")


def probe_packed(
    name: str,
    model: Any,
    device: torch.device,
    dtype: torch.dtype,
    run_packed: Callable[[], FloatArray],
    expected: FloatArray,
) -> str | None:
    """Switches a transformer to a packed path that gives what padding gives.

    First with our own layers, then with the model's layers over our attention.

    Args:
        name: The model, for the log.
        model: The transformers model, in float32 on a CPU.
        device: Where it runs.
        dtype: What it will run in; on a CPU the model is converted once it is found to serve.
        run_packed: Scores or embeds the probe inputs as one packed row.
        expected: The same inputs, padded, one by one.

    Returns:
        Why packing cannot serve, with the model left as it was; None where it serves.
    """
    if not packed_attention_available(device, dtype):
        return f"no packed attention on {device.type} in {dtype_name(dtype)}"
    if not getattr(model, "_can_set_attn_implementation", lambda: True)():
        return f"{type(model).__name__} has an attention of its own"
    usual = model.config._attn_implementation
    model.set_attn_implementation(PACKED_ATTENTION)
    tight = _tight(device, dtype)
    if _use_own_layers(model.base_model, dtype, run_packed, expected, tight):
        return None
    why = _failure(run_packed, expected, tight)
    if why is not None:
        model.set_attn_implementation(usual)
        logger.warning("%s runs padded, which is slower: %s", name, why)
    return why


def agrees(
    device: torch.device,
    dtype: torch.dtype,
    run_packed: Callable[[], FloatArray],
    expected: FloatArray,
) -> bool:
    """Whether another packed form of the probe inputs, too, gives what padding gives."""
    return _failure(run_packed, expected, _tight(device, dtype)) is None


def _tight(device: torch.device, dtype: torch.dtype) -> float:
    return 1e-4 if device.type == "cpu" or dtype == torch.float32 else _HALF_TOLERANCE


def _use_own_layers(
    base: Any,
    dtype: torch.dtype,
    run_packed: Callable[[], FloatArray],
    expected: FloatArray,
    tight: float,
) -> bool:
    """Puts our own layers in the place of the model's where they serve, and says whether."""
    theirs, loaded = getattr(base, "encoder", None), next(base.parameters()).dtype

    def serves(encoder: PackedEncoder | None, tolerance: float) -> bool:
        if encoder is None:
            return False
        base.encoder = encoder
        if _failure(run_packed, expected, tolerance) is None:
            return True
        base.encoder = theirs
        return False

    if not serves(PackedEncoder.of(base, loaded), tight):
        return False
    if dtype == loaded:
        return True
    base.encoder = theirs
    fused, plain = (PackedEncoder.of(base, dtype, onednn=onednn) for onednn in (True, False))
    return serves(fused, _HALF_TOLERANCE) or serves(plain, _HALF_TOLERANCE)


def position_offset(base_model: Any) -> int:
    """First position id of a sequence: 0, or padding_idx + 1 in the RoBERTa family."""
    embeddings: Any = getattr(base_model, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_input_ids"):
        return int(embeddings.padding_idx) + 1
    return 0


def _failure(
    run_packed: Callable[[], FloatArray], expected: FloatArray, tolerance: float
) -> str | None:
    try:
        return _disagreement(run_packed(), expected, tolerance)
    except Exception as error:
        # Whatever an unknown architecture raises here, the padded path still serves it.
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


def _disagreement(found: FloatArray, expected: FloatArray, tolerance: float) -> str | None:
    """Why two outputs are not the same, or None.

    In half precision both are rounded, so the difference is taken relative to the output: for all
    scores together, for each vector by itself (0.04 is a cosine of 0.9992).
    """
    if found.shape != expected.shape:
        return f"packed outputs have shape {found.shape}, not {expected.shape}"
    axis = None if expected.shape[-1] == 1 else -1
    difference = np.linalg.norm(found - expected, axis=axis)
    worst = float(np.max(difference / np.maximum(np.linalg.norm(expected, axis=axis), 1e-6)))
    if worst <= tolerance:
        return None
    return f"packed and padded outputs differ by {worst:.2g} of their size"
