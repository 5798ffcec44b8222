"""The layers of a BERT-like encoder on a packed row, with few and fused operations.

Takes the place of ``base_model.encoder``, so that embeddings, pooler and head stay the model's own.
Query, key and value are one product; residuals are added in place; on a CPU in half precision the
weights are laid out once for its matrix instructions and the activation runs inside the product.
Where the head reads first tokens alone, the last layer makes no others: of a sequence's operations
that saves nearly what five sixths of a layer take. The probe decides whether a model may use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from gpurerank.models.attention import attend, expected_reading
from gpurerank.models.packing import Layout

# What the weights are laid out for; other row counts run too.
_ROWS_HINT = 1024


class _Product:
    """x @ weight.T + bias."""

    def __init__(self, dtype: torch.dtype, *linears: nn.Linear) -> None:
        self.weight = torch.cat([each.weight.detach() for each in linears]).to(dtype)
        self.bias = torch.cat([each.bias.detach() for each in linears]).to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        """Followed by the exact GELU."""
        return torch.ops.aten.gelu_(self(x))  # type: ignore[no-any-return]

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """With a residual added."""
        return self(x).add_(residual)


class _OneDnnProduct(_Product):
    """The same with the weight in oneDNN's own layout, and what follows inside the product."""

    def __init__(self, dtype: torch.dtype, *linears: nn.Linear) -> None:
        super().__init__(dtype, *linears)
        self._ops = torch.ops.mkldnn
        self.weight = self._ops._reorder_linear_weight(self.weight, _ROWS_HINT)

    def __call__(self, x: Tensor) -> Tensor:
        return self._ops._linear_pointwise(x, self.weight, self.bias, "none", [], "")  # type: ignore[no-any-return]

    def gelu(self, x: Tensor) -> Tensor:
        return self._ops._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")  # type: ignore[no-any-return]

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return self._ops._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    epsilon: float

    @classmethod
    def of(cls, norm: nn.LayerNorm, dtype: torch.dtype) -> _Norm:
        return cls(norm.weight.detach().to(dtype), norm.bias.detach().to(dtype), norm.eps)

    def __call__(self, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.weight, self.bias, self.epsilon)


class _Layer:
    def __init__(self, layer: Any, dtype: torch.dtype, product: type[_Product]) -> None:
        own, output = layer.attention.self, layer.attention.output
        self._heads = int(own.num_attention_heads)
        self._take(own, dtype, product)
        self._projected = product(dtype, output.dense)
        self._first_norm = _Norm.of(output.LayerNorm, dtype)
        self._widened = product(dtype, layer.intermediate.dense)
        self._activation = layer.intermediate.intermediate_act_fn
        self._narrowed = product(dtype, layer.output.dense)
        self._second_norm = _Norm.of(layer.output.LayerNorm, dtype)

    def __call__(self, x: Tensor, layout: Layout) -> Tensor:
        """Shape (tokens, hidden) in and out."""
        query, key, value = self._parts(self._attended(x))
        return self._finished(attend(query, key, value, layout), x)

    def _take(self, own: Any, dtype: torch.dtype, product: type[_Product]) -> None:
        self._attended = product(dtype, own.query, own.key, own.value)

    def _parts(self, projected: Tensor) -> tuple[Tensor, ...]:
        """What was projected side by side, each of shape (tokens, heads, head_dim)."""
        head_dim = self._projected.bias.shape[0] // self._heads
        parts: tuple[Tensor, ...] = projected.unflatten(-1, (-1, self._heads, head_dim)).unbind(1)
        return parts

    def _finished(self, attended: Tensor, x: Tensor) -> Tensor:
        x = self._first_norm(self._projected.plus(attended.flatten(1), x))
        if type(self._activation).__name__ == "GELUActivation":
            wide = self._widened.gelu(x)
        else:
            wide = self._activation(self._widened(x))
        return self._second_norm(self._narrowed.plus(wide, x))


class _LastLayer(_Layer):
    """What it makes only the head reads, so it can make the first token of each sequence alone."""

    def __call__(self, x: Tensor, layout: Layout) -> Tensor:
        (query,), (key, value) = self._parts(self._asking(x)), self._parts(self._asked(x))
        return self._finished(attend(query, key, value, layout), x)

    def of_firsts(self, x: Tensor, layout: Layout) -> Tensor:
        """Shape (tokens, hidden) in, (sequences, hidden) out."""
        firsts = x.index_select(0, layout.starts)
        (query,), (key, value) = self._parts(self._asking(firsts)), self._parts(self._asked(x))
        return self._finished(attend(query, key, value, layout.of_firsts), firsts)

    def _take(self, own: Any, dtype: torch.dtype, product: type[_Product]) -> None:
        self._asking = product(dtype, own.query)
        self._asked = product(dtype, own.key, own.value)


class PackedEncoder(nn.Module):
    """Runs the layers of another encoder on a packed row; holds its own copy of the weights.

    Args:
        encoder: Modules as transformers' BERT has them.
        dtype: What the layers compute in; what surrounds them may be in another format.
        onednn: Whether products run in oneDNN: on a CPU, faster in half precision.

    Raises:
        AttributeError: The modules are not those of the BERT family.
        ValueError: There are no layers.
    """

    def __init__(self, encoder: Any, dtype: torch.dtype, *, onednn: bool) -> None:
        super().__init__()
        product = _OneDnnProduct if onednn else _Product
        self._dtype = dtype
        *earlier, last = encoder.layer
        self._layers = [_Layer(layer, dtype, product) for layer in earlier]
        self._last = _LastLayer(last, dtype, product)

    @classmethod
    def of(
        cls, base_model: Any, dtype: torch.dtype, *, onednn: bool = False
    ) -> PackedEncoder | None:
        """For a model of the BERT family; None where it is of another, or oneDNN cannot serve."""
        config = base_model.config
        if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
            return None
        try:
            return cls(base_model.encoder, dtype, onednn=onednn)
        # A RuntimeError is oneDNN's: this CPU does not multiply in that format.
        except (AttributeError, TypeError, ValueError, RuntimeError):
            return None

    def forward(
        self, hidden_states: Tensor, *_: Any, **__: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Shape (1, tokens, hidden) in, and out too, or (1, sequences, hidden) of first tokens.

        Masks are ignored: the layout says it all.

        Raises:
            ModelError: This thread is reading no packed row.
        """
        reading = expected_reading()
        x = hidden_states[0].to(self._dtype)
        for layer in self._layers:
            x = layer(x, reading.layout)
        if reading.firsts_only:
            x = self._last.of_firsts(x, reading.layout)
            reading.narrow()
        else:
            x = self._last(x, reading.layout)
        hidden = x.to(hidden_states.dtype).unsqueeze(0)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden)
