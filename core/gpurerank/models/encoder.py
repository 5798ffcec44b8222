"""The layers of a BERT-like encoder on a packed row, with few and fused operations.

Takes the place of ``base_model.encoder``, so that embeddings, pooler and head stay the model's own.
Query, key and value are one product; residuals are added in place; on a CPU in half precision the
weights are laid out once for its matrix instructions and the activation runs inside the product.
The probe decides whether a model may use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from gpurerank.models.attention import attend, current_layout

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
        self._attended = product(dtype, own.query, own.key, own.value)
        self._projected = product(dtype, output.dense)
        self._first_norm = _Norm.of(output.LayerNorm, dtype)
        self._widened = product(dtype, layer.intermediate.dense)
        self._activation = layer.intermediate.intermediate_act_fn
        self._narrowed = product(dtype, layer.output.dense)
        self._second_norm = _Norm.of(layer.output.LayerNorm, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Shape (tokens, hidden) in and out."""
        qkv = self._attended(x).unflatten(-1, (3, self._heads, -1))
        query, key, value = qkv.unbind(1)  # (tokens, heads, head_dim)
        attended = attend(query, key, value, current_layout())
        x = self._first_norm(self._projected.plus(attended.flatten(1), x))
        if type(self._activation).__name__ == "GELUActivation":
            wide = self._widened.gelu(x)
        else:
            wide = self._activation(self._widened(x))
        return self._second_norm(self._narrowed.plus(wide, x))


class PackedEncoder(nn.Module):
    """Runs the layers of another encoder on a packed row; holds its own copy of the weights.

    Args:
        encoder: Modules as transformers' BERT has them.
        dtype: What the layers compute in; what surrounds them may be in another format.
        onednn: Whether products run in oneDNN: on a CPU, faster in half precision.

    Raises:
        AttributeError: The modules are not those of the BERT family.
    """

    def __init__(self, encoder: Any, dtype: torch.dtype, *, onednn: bool) -> None:
        super().__init__()
        product = _OneDnnProduct if onednn else _Product
        self._dtype = dtype
        self._layers = [_Layer(layer, dtype, product) for layer in encoder.layer]

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
        except (AttributeError, TypeError, RuntimeError):
            return None

    def forward(
        self, hidden_states: Tensor, *_: Any, **__: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Shape (1, tokens, hidden) in and out; masks are ignored: the layout says it all."""
        x = hidden_states[0].to(self._dtype)
        for layer in self._layers:
            x = layer(x)
        hidden = x.to(hidden_states.dtype).unsqueeze(0)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden)
