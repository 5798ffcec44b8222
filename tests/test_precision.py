"""Weights in half precision: what is converted, and what must stay in float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers

from gpurerank.models.loading import ModelSpec
from gpurerank.models.pair_model import PairModel
from gpurerank.models.precision import convert_weights, weights_in_float32


@pytest.mark.parametrize("family", ["causal", "modernbert_cls"])
def test_rotary_frequencies_stay_in_float32(
    family: str, model_folder: Callable[[str], str]
) -> None:
    model = PairModel(ModelSpec(name=model_folder(family), device="cpu", dtype="bfloat16"))
    weights = {p.dtype for p in model._model.parameters()}
    buffers = {
        name: buffer.dtype for name, buffer in model._model.named_buffers() if "inv_freq" in name
    }
    assert weights == {torch.bfloat16}
    assert len(buffers) >= 2
    assert set(buffers.values()) == {torch.float32}


def test_converted_weights_equal_loading_in_that_format(model_folder: Callable[[str], str]) -> None:
    folder = model_folder("causal")
    token_ids = torch.arange(1, 201).remainder(97).unsqueeze(0)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    converted = transformers.AutoModelForCausalLM.from_pretrained(folder)
    convert_weights(converted, torch.bfloat16)
    with torch.inference_mode():
        torch.testing.assert_close(
            converted(token_ids).logits, loaded(token_ids).logits, rtol=0, atol=0
        )


def test_modules_that_transformers_keeps_in_float32_are_not_converted() -> None:
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    model = transformers.T5EncoderModel(config)
    convert_weights(model, torch.float16)
    formats = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert formats["encoder.block.0.layer.1.DenseReluDense.wo.weight"] == torch.float32
    assert formats["encoder.block.0.layer.1.DenseReluDense.wi.weight"] == torch.float16


def test_float32_weights_are_converted_back_exactly() -> None:
    linear = torch.nn.Linear(8, 8).to(torch.bfloat16)
    before = linear.weight.detach().clone()
    with weights_in_float32(linear):
        assert linear.weight.dtype == torch.float32
    assert linear.weight.dtype == torch.bfloat16
    assert torch.equal(linear.weight, before)
