"""Scores are those of the reference implementation, packed or padded, alone or in a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder as Reference

from gpurerank import CrossEncoder
from gpurerank.models.attention import packed_pass
from gpurerank.models.encoder import PackedEncoder
from gpurerank.models.loading import ModelSpec
from gpurerank.models.packing import PackedRow, pack
from gpurerank.models.pair_model import PairModel
from gpurerank.models.pooling import first_tokens
from gpurerank.ranking import logit_of
from tests.tiny_models import FAMILIES, PAIRS

OWN_LAYERS = ["bert", "electra", "roberta", "xlm_roberta", "camembert"]
PACKED = [*OWN_LAYERS, "modernbert_cls", "modernbert_mean", "distilbert"]
LONG = [
    ("a long query " * 90, "fox"),
    ("fox", "a long passage " * 300),
    ("fox " * 300, "dog " * 400),
]


def logits(scores: list[float]) -> list[float]:
    return [logit_of(score) for score in scores]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_sentence_transformers(
    family: str, model_folder: Callable[[str], str]
) -> None:
    folder = model_folder(family)
    expected = Reference(folder, device="cpu").predict(PAIRS, activation_fn=_identity())
    scorer = CrossEncoder(folder, device="cpu", dtype="float32")
    np.testing.assert_allclose(logits(scorer.score_pairs(PAIRS)), expected, rtol=0, atol=1e-5)
    assert np.std(expected) > 1e-3, "a model that says the same of everything proves nothing"


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm_roberta", "modernbert_mean"])
def test_cut_pairs_equal_sentence_transformers(
    family: str, model_folder: Callable[[str], str]
) -> None:
    folder = model_folder(family)
    expected = Reference(folder, device="cpu", max_length=64).predict(
        LONG, activation_fn=_identity()
    )
    scorer = CrossEncoder(folder, device="cpu", dtype="float32", max_length=64)
    np.testing.assert_allclose(logits(scorer.score_pairs(LONG)), expected, rtol=0, atol=1e-5)


def pair_model(folder: str, dtype: str = "float32") -> PairModel:
    return PairModel(ModelSpec(name=folder, device="cpu", dtype=dtype))


def run(model: PairModel, pairs: list[tuple[str, str]]) -> np.ndarray:
    return model.run(model.prepare(pairs, model.tokenize(pairs)))


@pytest.mark.parametrize("family", PACKED)
def test_family_runs_packed(family: str, model_folder: Callable[[str], str]) -> None:
    model = pair_model(model_folder(family))
    assert model.why_padded is None
    assert model.packed
    own_layers = isinstance(getattr(model._model.base_model, "encoder", None), PackedEncoder)
    assert own_layers == (family in OWN_LAYERS)


@pytest.mark.parametrize("family", OWN_LAYERS)
def test_own_layers_in_bfloat16_are_as_exact_as_the_models_layers_in_bfloat16(
    family: str, model_folder: Callable[[str], str]
) -> None:
    folder = model_folder(family)
    float32_logits = run(pair_model(folder), PAIRS)
    model = pair_model(folder, "bfloat16")
    assert isinstance(model._model.base_model.encoder, PackedEncoder)
    reference = Reference(folder, device="cpu", model_kwargs={"dtype": torch.bfloat16})
    padded_logits = reference.predict(PAIRS, activation_fn=_identity())
    # The order of summation differs from processor to processor, and with it the rounding.
    padded_error = np.abs(padded_logits - float32_logits).max()
    packed_error = np.abs(run(model, PAIRS) - float32_logits).max()
    assert packed_error <= max(3 * padded_error, 0.04 * float32_logits.std())


@pytest.mark.parametrize("family", OWN_LAYERS)
def test_the_last_layer_makes_first_tokens_alone_as_it_makes_all(
    family: str, model_folder: Callable[[str], str]
) -> None:
    model = pair_model(model_folder(family))
    row = pack(model.tokenize(PAIRS), model._position_offset, width=lambda tokens: tokens + 70)
    found = []
    for cls_only in (False, True):
        with torch.inference_mode(), packed_pass(row.layout, cls_only=cls_only) as read:
            hidden = model._model.base_model.encoder(_states(row)).last_hidden_state
        found.append((hidden.shape[1], first_tokens(hidden, read.layout)))
    (tokens, of_all), (sequences, alone) = found
    assert (tokens, sequences) == (row.layout.tokens, len(row.layout.first_indices))
    torch.testing.assert_close(alone, of_all, rtol=0, atol=1e-5)
    assert of_all.std(dim=0).mean() > 1e-3


@pytest.mark.parametrize("family", ["albert", "deberta_v2"])
def test_family_that_packing_would_falsify_runs_padded(
    family: str, model_folder: Callable[[str], str]
) -> None:
    model = pair_model(model_folder(family))
    assert not model.packed
    assert model.why_padded
    # A pair's score does not depend on its neighbours.
    alone = np.concatenate([run(model, [pair]) for pair in PAIRS])
    np.testing.assert_allclose(run(model, PAIRS), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("max_tokens", [64, 256, 4096])
@pytest.mark.parametrize("family", ["bert", "modernbert_mean", "causal_chat"])
def test_score_ignores_batch_neighbours(
    family: str, max_tokens: int, model_folder: Callable[[str], str]
) -> None:
    folder = model_folder(family)
    options = {"device": "cpu", "dtype": "float32"}
    together = CrossEncoder(folder, **options, max_tokens=max_tokens).score_pairs(PAIRS)
    alone = [CrossEncoder(folder, **options).score_pairs([pair])[0] for pair in PAIRS]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["causal", "causal_chat"])
def test_causal_scores_equal_sentence_transformers(
    name: str, model_folder: Callable[[str], str]
) -> None:
    folder = model_folder(name)
    reference = Reference(folder, device="cpu", max_length=256)
    reference.tokenizer.pad_token = reference.tokenizer.eos_token
    expected = reference.predict(PAIRS, batch_size=len(PAIRS), activation_fn=_identity())
    scorer = CrossEncoder(folder, device="cpu", dtype="float32", max_length=256)
    assert scorer.packed
    np.testing.assert_allclose(logits(scorer.score_pairs(PAIRS)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["causal", "causal_chat"])
def test_a_causal_model_reads_what_passages_of_a_query_share_once(
    name: str, model_folder: Callable[[str], str]
) -> None:
    query = "which of these two animals is said to be lazy, the fox or the dog beside it?"
    pairs = [(query, "the dog"), PAIRS[0], *[(query, passage) for _, passage in PAIRS]]
    model = pair_model(model_folder(name))
    tokens = model.tokenize(pairs)
    batch = model.prepare(pairs, tokens)
    assert isinstance(batch, PackedRow)
    assert batch.layout.keys is not None
    assert batch.layout.tokens < 0.75 * sum(map(len, tokens))
    alone = np.concatenate([run(model, [pair]) for pair in pairs])
    np.testing.assert_allclose(model.run(batch), alone, rtol=0, atol=1e-5)
    assert alone.std() > 1e-3


def test_a_model_that_answers_but_is_not_causal_shares_nothing(
    model_folder: Callable[[str], str],
) -> None:
    folder = model_folder("bidirectional")
    query = "which of these two animals is said to be lazy, the fox or the dog beside it?"
    pairs = [(query, passage) for _, passage in PAIRS]
    reference = Reference(folder, device="cpu", max_length=256)
    expected = reference.predict(pairs, batch_size=1, activation_fn=_identity())
    model = pair_model(folder)
    assert model.packed
    np.testing.assert_allclose(run(model, pairs), expected, rtol=0, atol=1e-5)


def test_instruction_reaches_the_model(model_folder: Callable[[str], str]) -> None:
    folder = model_folder("causal_chat")
    reference = Reference(folder, device="cpu", max_length=256)
    reference.tokenizer.pad_token = reference.tokenizer.eos_token
    expected = reference.predict(PAIRS, prompt="Find the capital.", activation_fn=_identity())
    options = {"device": "cpu", "dtype": "float32", "max_length": 256}
    told = CrossEncoder(folder, instruction="Find the capital.", **options).score_pairs(PAIRS)
    plain = CrossEncoder(folder, **options).score_pairs(PAIRS)
    np.testing.assert_allclose(logits(told), expected, rtol=0, atol=1e-5)
    assert np.abs(np.subtract(told, plain)).max() > 1e-4


def test_two_labels_give_the_softmax_of_the_named_one(model_folder: Callable[[str], str]) -> None:
    folder = model_folder("two_labels")
    expected = Reference(folder, device="cpu").predict(PAIRS, apply_softmax=True)
    for label in (0, 1):
        scorer = CrossEncoder(folder, device="cpu", dtype="float32", positive_label=label)
        np.testing.assert_allclose(scorer.score_pairs(PAIRS), expected[:, label], atol=1e-5)


def test_bfloat16_stays_near_float32(tiny: str) -> None:
    exact = CrossEncoder(tiny, device="cpu", dtype="float32").score_pairs(PAIRS)
    rounded = CrossEncoder(tiny, device="cpu", dtype="bfloat16").score_pairs(PAIRS)
    np.testing.assert_allclose(rounded, exact, atol=0.03)


def _states(row: PackedRow) -> torch.Tensor:
    return torch.randn((1, row.layout.tokens, 32), generator=torch.Generator().manual_seed(5))


def _identity() -> object:
    return torch.nn.Identity()
