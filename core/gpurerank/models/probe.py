"""The check at load time that decides whether a model runs packed.

A few inputs of different lengths are run packed and padded, and both are compared with a padded
reference in float32. In half precision two correct ways to sum the same products differ, and in a
deep model by more than any fixed tolerance that would still catch a wrong layout. So the error of
the packed path may be three times that of the padded path in the same format, and both are taken
relative to the spread of the reference over the inputs, because only differences between scores
decide a ranking. Packed inputs must also give the same together and alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from gpurerank.models.attention import PACKED_ATTENTION, packed_attention_available
from gpurerank.models.device_errors import is_out_of_memory
from gpurerank.models.devices import dtype_name
from gpurerank.models.encoder import PackedEncoder
from gpurerank.models.precision import weights_in_float32
from gpurerank.types import FloatArray

# Errors relative to the spread below which outputs count as equal.
_FLOAT32_TOLERANCE = 1e-3
_HALF_TOLERANCE = 0.01
# Error that the packed path may have, relative to that of the padded path in the same format.
_ERROR_RATIO = 3.0
# Without a float32 reference: the spread of a hybrid decoder whose scores depend on batch
# neighbours was missed by .38, that of healthy models by .05 and less.
_TOLERANCE_WITHOUT_REFERENCE = 0.1

logger = logging.getLogger("gpurerank")

RunPadded = Callable[[], FloatArray]
# Runs the probe inputs of these indices as one packed row.
RunPacked = Callable[[Sequence[int]], FloatArray]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the probe inputs must give.

    Attributes:
        outputs: Padded, one by one, in float32: shape (inputs, values).
        float32_tolerance: Error that a float32 path may have, relative to the spread.
        tolerance: Error that a path in the model's own format may have.
    """

    outputs: FloatArray
    float32_tolerance: float
    tolerance: float

    @classmethod
    def measure(
        cls, model: nn.Module, device: torch.device, dtype: torch.dtype, run_padded: RunPadded
    ) -> Reference:
        """Runs the padded path in float32 and in the model's own format.

        Args:
            model: Holds the weights; float32 on a CPU, else already in ``dtype``.
            device: Where it runs.
            dtype: Format that it will run in.
            run_padded: Runs the probe inputs padded, one by one.
        """
        own_format = run_padded()
        if dtype == torch.float32:
            return cls(own_format, _FLOAT32_TOLERANCE, _FLOAT32_TOLERANCE)
        if device.type == "cpu":
            # The model is converted only after the probe; autocast computes as it will then.
            outputs = own_format
            with torch.autocast("cpu", dtype=dtype):
                own_format = run_padded()
        else:
            try:
                with weights_in_float32(model):
                    outputs = run_padded()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                return cls(own_format, _FLOAT32_TOLERANCE, _TOLERANCE_WITHOUT_REFERENCE)
        tolerance = max(_HALF_TOLERANCE, _ERROR_RATIO * relative_error(own_format, outputs))
        return cls(outputs, _FLOAT32_TOLERANCE, tolerance)


def relative_error(outputs: FloatArray, reference: FloatArray) -> float:
    """Largest distance of an output from its reference, relative to the spread of the reference.

    Args:
        outputs: Shape (inputs, values).
        reference: Shape (inputs, values).

    Returns:
        At least 0; NaN if an output is NaN.
    """
    distances = np.linalg.norm(outputs - reference, axis=1)
    deviations = np.linalg.norm(reference - reference.mean(axis=0), axis=1)
    spread = float(np.sqrt(np.mean(deviations**2)))
    # A model that gives the same for all inputs is compared relative to that.
    return float(distances.max()) / max(spread, 1e-3 * float(np.linalg.norm(reference[0])), 1e-12)


class Probe:
    """Switches a transformer to the fastest packed path that gives what padding gives.

    Args:
        name: Name of the model, for the log.
        model: The transformers model.
        device: Where it runs.
        dtype: Format that it will run in; on a CPU the model is converted after the probe.
        run_packed: Scores or embeds probe inputs as one packed row.
        reference: What they must give.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        device: torch.device,
        dtype: torch.dtype,
        run_packed: RunPacked,
        reference: Reference,
    ) -> None:
        self._name = name
        self._model = model
        self._device = device
        self._dtype = dtype
        self._run_packed = run_packed
        self._reference = reference
        self._model_layers = getattr(model.base_model, "encoder", None)
        # The model is float32 on a CPU until the probe has ended.
        on_cpu = device.type == "cpu"
        self._tolerance = reference.float32_tolerance if on_cpu else reference.tolerance

    def switch_to_packed(self) -> str | None:
        """Tries the package's own layers, then the model's layers over packed attention.

        Returns:
            Why packing cannot serve, with the model left as it was; None where it serves.
        """
        if not packed_attention_available(self._device, self._dtype):
            return f"no packed attention on {self._device.type} in {dtype_name(self._dtype)}"
        if not getattr(self._model, "_can_set_attn_implementation", lambda: True)():
            return f"{type(self._model).__name__} does not let its attention be replaced"
        implementation = self._model.config._attn_implementation
        self._model.set_attn_implementation(PACKED_ATTENTION)
        if self._use_package_layers():
            return None
        reason = self._failure(self._tolerance)
        if reason is not None:
            self._model.set_attn_implementation(implementation)
            logger.warning("%s runs padded, which is slower: %s", self._name, reason)
        return reason

    def accepts(self, run_packed: Callable[[], FloatArray]) -> bool:
        """Whether another packed form of all probe inputs also gives what padding gives."""
        try:
            return _difference(run_packed(), self._reference.outputs, self._tolerance) is None
        except Exception:  # as in _failure
            return False

    def _use_package_layers(self) -> bool:
        """Replaces the layers of the BERT family by ``PackedEncoder`` where that serves."""
        loaded_dtype = next(self._model.base_model.parameters()).dtype
        if not self._try_package_layers(loaded_dtype, self._tolerance):
            return False
        if self._dtype == loaded_dtype:
            return True
        return any(
            self._try_package_layers(self._dtype, self._reference.tolerance, onednn=onednn)
            for onednn in (True, False)
        )

    def _try_package_layers(
        self, dtype: torch.dtype, tolerance: float, *, onednn: bool = False
    ) -> bool:
        if self._model_layers is None:
            return False
        base = self._model.base_model
        base.encoder = self._model_layers
        layers = PackedEncoder.of(base, dtype, onednn=onednn)
        if layers is None:
            return False
        base.encoder = layers
        reason = self._failure(tolerance)
        if reason is None:
            return True
        base.encoder = self._model_layers
        logger.warning(
            "%s does not use the package's own layers in %s, which are faster: %s",
            self._name,
            dtype_name(dtype),
            reason,
        )
        return False

    def _failure(self, tolerance: float) -> str | None:
        """Why the packed path as it is now cannot serve, or None."""
        indices = range(len(self._reference.outputs))
        try:
            together = self._run_packed(indices)
            reason = _difference(together, self._reference.outputs, tolerance)
            if reason is not None:
                return f"packed and padded outputs {reason}"
            alone = np.concatenate([self._run_packed([index]) for index in indices])
            reason = _difference(alone, together, tolerance)
            return reason and f"outputs of packed inputs alone and in a batch {reason}"
        except Exception as error:
            # Whatever an unknown architecture raises here, the padded path still serves it.
            return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


def position_offset(base_model: Any) -> int:
    """First position id of a sequence: 0, or padding_idx + 1 in the RoBERTa family."""
    embeddings: Any = getattr(base_model, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_input_ids"):
        return int(embeddings.padding_idx) + 1
    return 0


def _difference(outputs: FloatArray, reference: FloatArray, tolerance: float) -> str | None:
    """How outputs differ from their reference; None if they agree within the tolerance."""
    if outputs.shape != reference.shape:
        return f"differ in shape: {outputs.shape} and {reference.shape}"
    error = relative_error(outputs, reference)
    if error <= tolerance:
        return None
    return f"differ by {error:.2g} of their spread, over the tolerance of {tolerance:.2g}"
