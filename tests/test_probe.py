"""The check at load time: healthy packed paths pass, wrong ones do not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import transformers

from gpurerank.models.attention import PACKED_ATTENTION
from gpurerank.models.encoder import PackedEncoder
from gpurerank.models.loading import ModelSpec
from gpurerank.models.pair_model import PairModel
from gpurerank.models.probe import Probe, Reference, relative_error
from gpurerank.types import FloatArray

CPU = torch.device("cpu")
LOGITS = np.array([[-2.0], [0.5], [1.0], [3.0]], dtype=np.float32)


@pytest.fixture
def bert(model_folder: Callable[[str], str]) -> transformers.PreTrainedModel:
    return transformers.AutoModelForSequenceClassification.from_pretrained(model_folder("bert"))


def probe_of(
    model: transformers.PreTrainedModel,
    run_packed: Callable[[Sequence[int]], FloatArray],
    tolerance: float = 1e-3,
) -> Probe:
    return Probe("tiny", model, CPU, torch.float32, run_packed, Reference(LOGITS, tolerance, 1.0))


def test_error_is_relative_to_the_spread_of_the_scores() -> None:
    shifted = LOGITS + 100.0
    outputs = shifted.copy()
    outputs[2] += 0.36
    # The standard deviation of -2, 0.5, 1 and 3 is 1.78.
    assert relative_error(outputs, shifted) == pytest.approx(0.36 / LOGITS.std(), rel=1e-3)
    assert np.isnan(relative_error(np.full_like(LOGITS, np.nan), LOGITS))


def test_equal_scores_pass_and_switch_the_attention(bert: transformers.PreTrainedModel) -> None:
    probe = probe_of(bert, lambda indices: LOGITS[list(indices)])
    assert probe.switch_to_packed() is None
    assert bert.config._attn_implementation == PACKED_ATTENTION
    assert isinstance(bert.base_model.encoder, PackedEncoder)


def test_scores_that_depend_on_batch_neighbours_are_refused(
    bert: transformers.PreTrainedModel, caplog: pytest.LogCaptureFixture
) -> None:
    before = bert.config._attn_implementation

    def leaking(indices: Sequence[int]) -> FloatArray:
        # Right in the probe's full batch, but another score where an input is alone.
        return LOGITS[list(indices)] + (0.1 if len(indices) == 1 else 0.0)

    with caplog.at_level(logging.WARNING, "gpurerank"):
        reason = probe_of(bert, leaking).switch_to_packed()
    assert reason is not None
    assert "alone and in a batch" in reason
    assert bert.config._attn_implementation == before
    assert not isinstance(bert.base_model.encoder, PackedEncoder)
    assert "does not use the package's own layers" in caplog.text
    assert "runs padded" in caplog.text


@pytest.mark.parametrize(("packed_error", "accepted"), [(0.06, True), (0.12, False)])
def test_half_precision_may_err_three_times_as_much_as_padding(
    packed_error: float, accepted: bool
) -> None:
    def run_padded() -> FloatArray:
        in_bfloat16 = torch.is_autocast_enabled("cpu")
        return LOGITS + np.float32(0.03 * LOGITS.std() if in_bfloat16 else 0.0)

    reference = Reference.measure(torch.nn.Linear(1, 1), CPU, torch.bfloat16, run_padded)
    assert reference.tolerance == pytest.approx(0.09, rel=1e-3)
    np.testing.assert_array_equal(reference.outputs, LOGITS)
    error = relative_error(LOGITS + np.float32(packed_error * LOGITS.std()), LOGITS)
    assert (error <= reference.tolerance) == accepted


def test_without_autocast_the_reference_is_float32_and_strict() -> None:
    reference = Reference.measure(torch.nn.Linear(1, 1), CPU, torch.float32, lambda: LOGITS)
    assert reference.tolerance == reference.float32_tolerance == 1e-3


def test_deep_layers_in_bfloat16_are_accepted(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[[str], str]
) -> None:
    folder = tmp_path_factory.mktemp("deep")
    config = transformers.AutoConfig.from_pretrained(model_folder("bert"))
    config.num_hidden_layers, config.initializer_range = 24, 0.1
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(model_folder("bert")).save_pretrained(folder)
    model = PairModel(ModelSpec(name=str(folder), device="cpu", dtype="bfloat16"))
    assert model.why_padded is None
    assert isinstance(model._model.base_model.encoder, PackedEncoder)
