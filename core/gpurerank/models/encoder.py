"""The layers of a BERT-like encoder on a packed row, in few and fused operations.

Replaces ``base_model.encoder``, so that embeddings, pooler and head stay the model's own. Query,
key and value are one matrix product; residuals are added in place; on a CPU in half precision the
weights are stored in oneDNN's layout and the activation runs inside the product. Where the head
reads only the CLS token, the last layer computes only that token of each sequence, which saves
about five sixths of a layer. The probe decides whether a model may use these layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from gpurerank.models.attention import attend, require_pass
from gpurerank.models.packing import Layout

# Row count that oneDNN optimizes the weight layout for; other row counts run too.
_ROWS_HINT = 1024


class _Linear:
    """x @ weight.T + bias, of one linear module or of several side by side."""

    def __init__(self, dtype: torch.dtype, *modules: nn.Linear) -> None:
        self.weight = torch.cat([module.weight.detach() for module in modules]).to(dtype)
        self.bias = torch.cat([module.bias.detach() for module in modules]).to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def with_gelu(self, x: Tensor) -> Tensor:
        """Followed by the exact GELU."""
        return torch.ops.aten.gelu_(self(x))  # type: ignore[no-any-return]

    def with_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        """With a residual added."""
        return self(x).add_(residual)


class _OneDnnLinear(_Linear):
    """The same in oneDNN, with the activation or the residual as the product's epilogue."""

    def __init__(self, dtype: torch.dtype, *modules: nn.Linear) -> None:
        super().__init__(dtype, *modules)
        self._ops = torch.ops.mkldnn
        self.weight = self._ops._reorder_linear_weight(self.weight, _ROWS_HINT)

    def __call__(self, x: Tensor) -> Tensor:
        return self._ops._linear_pointwise(x, self.weight, self.bias, "none", [], "")  # type: ignore[no-any-return]

    def with_gelu(self, x: Tensor) -> Tensor:
        return self._ops._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")  # type: ignore[no-any-return]

    def with_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        return self._ops._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class _LayerNorm:
    weight: Tensor
    bias: Tensor
    epsilon: float

    @classmethod
    def of(cls, norm: nn.LayerNorm, dtype: torch.dtype) -> _LayerNorm:
        return cls(norm.weight.detach().to(dtype), norm.bias.detach().to(dtype), norm.eps)

    def __call__(self, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.weight, self.bias, self.epsilon)


class _Layer:
    def __init__(self, layer: Any, dtype: torch.dtype, linear_class: type[_Linear]) -> None:
        attention, output = layer.attention.self, layer.attention.output
        self._heads = int(attention.num_attention_heads)
        self._add_input_projections(attention, dtype, linear_class)
        self._out_proj = linear_class(dtype, output.dense)
        self._attention_norm = _LayerNorm.of(output.LayerNorm, dtype)
        self._up_proj = linear_class(dtype, layer.intermediate.dense)
        self._activation = layer.intermediate.intermediate_act_fn
        self._down_proj = linear_class(dtype, layer.output.dense)
        self._output_norm = _LayerNorm.of(layer.output.LayerNorm, dtype)

    def __call__(self, x: Tensor, layout: Layout) -> Tensor:
        """Shape (tokens, hidden) in and out."""
        query, key, value = self._split_heads(self._qkv_proj(x))
        return self._finish(attend(query, key, value, layout), x)

    def _add_input_projections(
        self, attention: Any, dtype: torch.dtype, linear_class: type[_Linear]
    ) -> None:
        self._qkv_proj = linear_class(dtype, attention.query, attention.key, attention.value)

    def _split_heads(self, projected: Tensor) -> tuple[Tensor, ...]:
        """(tokens, n * hidden) to n tensors of shape (tokens, heads, head_dim)."""
        head_dim = self._out_proj.bias.shape[0] // self._heads
        parts: tuple[Tensor, ...] = projected.unflatten(-1, (-1, self._heads, head_dim)).unbind(1)
        return parts

    def _finish(self, attended: Tensor, residual: Tensor) -> Tensor:
        """Output projection and MLP; (tokens, heads, head_dim) to (tokens, hidden)."""
        x = self._attention_norm(self._out_proj.with_residual(attended.flatten(1), residual))
        if type(self._activation).__name__ == "GELUActivation":
            intermediate = self._up_proj.with_gelu(x)
        else:
            intermediate = self._activation(self._up_proj(x))
        return self._output_norm(self._down_proj.with_residual(intermediate, x))


class _LastLayer(_Layer):
    """The last layer, which can compute the CLS tokens alone: only the head reads its output."""

    def __call__(self, x: Tensor, layout: Layout) -> Tensor:
        (query,) = self._split_heads(self._q_proj(x))
        key, value = self._split_heads(self._kv_proj(x))
        return self._finish(attend(query, key, value, layout), x)

    def compute_cls(self, x: Tensor, layout: Layout) -> Tensor:
        """Shape (tokens, hidden) in, (sequences, hidden) out."""
        cls_states = x.index_select(0, layout.first_indices)
        (query,) = self._split_heads(self._q_proj(cls_states))
        key, value = self._split_heads(self._kv_proj(x))
        return self._finish(attend(query, key, value, layout.cls_layout), cls_states)

    def _add_input_projections(
        self, attention: Any, dtype: torch.dtype, linear_class: type[_Linear]
    ) -> None:
        self._q_proj = linear_class(dtype, attention.query)
        self._kv_proj = linear_class(dtype, attention.key, attention.value)


class PackedEncoder(nn.Module):
    """Runs the layers of another encoder on a packed row; holds its own copy of the weights.

    Args:
        encoder: Modules as in transformers' BERT.
        dtype: Format that the layers compute in; the modules around them may use another.
        onednn: Whether products run in oneDNN, which is faster on a CPU in half precision.

    Raises:
        AttributeError: The modules are not those of the BERT family.
        ValueError: There are no layers.
    """

    def __init__(self, encoder: Any, dtype: torch.dtype, *, onednn: bool) -> None:
        super().__init__()
        linear_class = _OneDnnLinear if onednn else _Linear
        self._dtype = dtype
        *layers, last_layer = encoder.layer
        self._layers = [_Layer(layer, dtype, linear_class) for layer in layers]
        self._last_layer = _LastLayer(last_layer, dtype, linear_class)

    @classmethod
    def of(
        cls, base_model: Any, dtype: torch.dtype, *, onednn: bool = False
    ) -> PackedEncoder | None:
        """The layers of a model of the BERT family; None for others, or where oneDNN fails."""
        config = base_model.config
        if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
            return None
        try:
            return cls(base_model.encoder, dtype, onednn=onednn)
        # oneDNN raises a RuntimeError on a CPU that does not multiply in this format.
        except (AttributeError, TypeError, ValueError, RuntimeError):
            return None

    def forward(
        self, hidden_states: Tensor, *_: Any, **__: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Runs all layers; attention masks are ignored, since the layout replaces them.

        Args:
            hidden_states: Shape (1, tokens, hidden).

        Returns:
            The same shape, or (1, sequences, hidden) where the pass needs only CLS tokens.

        Raises:
            ModelError: The calling thread is not in a pass over a packed row.
        """
        packed = require_pass()
        x = hidden_states[0].to(self._dtype)  # (tokens, hidden)
        for layer in self._layers:
            x = layer(x, packed.layout)
        if packed.cls_only:
            x = self._last_layer.compute_cls(x, packed.layout)
            packed.keep_cls_tokens()
        else:
            x = self._last_layer(x, packed.layout)
        hidden = x.to(hidden_states.dtype).unsqueeze(0)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden)
