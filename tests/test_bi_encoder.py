"""Vectors are those of sentence-transformers: pooling, normalisation and prompts included."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder as Reference
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from gpurerank import BiEncoder, InputError, ModelError
from gpurerank.chroma import GPUEmbeddingFunction
from gpurerank.models.embedded import base_folder
from langchain_gpurerank import GPUEmbeddings
from llamaindex_gpurerank import GPUEmbedding

TEXTS = [
    "Paris is the capital of France.",
    "fox",
    "subprocess.run executes a command, waits, and returns its output. " * 8,
    "Größe, naïve café — 12.5 % of £3, 高さ мир",
    "",
    "the quick brown fox " * 200,
]


def build(folder: Path, base: str, pooling: str, *, dense: bool = False) -> str:
    transformer = Transformer(base)
    transformer.max_seq_length = 96
    modules: list[object] = [transformer, Pooling(32, pooling)]
    if dense:
        modules.append(Dense(32, 12))
    modules.append(Normalize())
    model = SentenceTransformer(
        modules=modules,  # type: ignore[arg-type]
        device="cpu",
        prompts={"query": "query: ", "document": "passage: "},
    )
    model.save_pretrained(str(folder))
    return str(folder)


@pytest.mark.parametrize(
    ("family", "pooling", "packed"),
    [
        ("bert", "mean", True),
        ("bert", "cls", True),
        ("roberta", "mean", True),
        ("xlm_roberta", "cls", True),
        ("modernbert_cls", "mean", True),
        ("bert", "max", False),
        ("albert", "mean", None),
    ],
)
def test_vectors_equal_sentence_transformers(
    family: str,
    pooling: str,
    packed: bool | None,
    model_folder: Callable[[str], str],
    tmp_path: Path,
) -> None:
    folder = build(tmp_path, model_folder(family), pooling, dense=pooling == "cls")
    reference = SentenceTransformer(folder, device="cpu")
    encoder = BiEncoder(folder, device="cpu", dtype="float32")
    if packed is not None:
        assert encoder.packed is packed
    passages, queries = reference.encode_document(TEXTS), reference.encode_query(TEXTS)
    np.testing.assert_allclose(encoder.embed_passages(TEXTS), passages, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.embed_queries(TEXTS), queries, rtol=0, atol=1e-5)
    assert np.abs(passages - queries).max() > 1e-3, "the prompts must make a difference"


def test_embedded_vectors_equal_sentence_transformers() -> None:
    reference = SentenceTransformer(str(base_folder()), device="cpu")
    with_float32 = BiEncoder(device="cpu", dtype="float32")
    assert with_float32.packed
    found = with_float32.embed_passages(TEXTS)
    np.testing.assert_allclose(found, reference.encode(TEXTS), rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    with_float32.close()


def test_a_vector_ignores_its_neighbours(bi_encoder: BiEncoder) -> None:
    exact = BiEncoder(device="cpu", dtype="float32")
    alone = np.concatenate([exact.embed_passages([text]) for text in TEXTS])
    np.testing.assert_allclose(exact.embed_passages(TEXTS), alone, rtol=0, atol=1e-5)
    np.testing.assert_allclose(bi_encoder.embed_passages(TEXTS), alone, rtol=0, atol=0.02)
    assert bi_encoder.embed_passages([]).shape == (0, 384)
    exact.close()


def test_query_prompt_replaces_the_models_own(
    model_folder: Callable[[str], str], tmp_path: Path
) -> None:
    folder = build(tmp_path, model_folder("bert"), "mean")
    reference = SentenceTransformer(folder, device="cpu")
    encoder = BiEncoder(folder, device="cpu", dtype="float32", query_prompt="find: ")
    expected = reference.encode(TEXTS, prompt="find: ")
    np.testing.assert_allclose(encoder.embed_queries(TEXTS), expected, rtol=0, atol=1e-5)


def test_async_embeds_as_sync(bi_encoder: BiEncoder) -> None:
    async def both() -> tuple[np.ndarray, np.ndarray]:
        return await bi_encoder.aembed_queries(TEXTS), await bi_encoder.aembed_passages(TEXTS)

    queries, passages = asyncio.run(both())
    np.testing.assert_array_equal(queries, bi_encoder.embed_queries(TEXTS))
    np.testing.assert_array_equal(passages, bi_encoder.embed_passages(TEXTS))


def test_a_cut_passage_is_reported(bi_encoder: BiEncoder) -> None:
    passages = ["short", "word " * 1200, "word " * 254]
    ranked = {p.index: p.truncated for p in bi_encoder.rank("zebra", passages)}
    assert ranked == {0: False, 1: True, 2: False}


def test_blank_input_cannot_win(bi_encoder: BiEncoder) -> None:
    ranked = bi_encoder.rank("capital of France", ["", "the tokenizer splits words", " \n"])
    assert [p.index for p in ranked] == [1, 0, 2]
    assert [p.score for p in ranked[1:]] == [-1.0, -1.0]
    with pytest.raises(InputError, match="the query is blank"):
        bi_encoder.rank(" ", ["a"])


def test_an_empty_prompt_is_a_prompt(model_folder: Callable[[str], str], tmp_path: Path) -> None:
    model = SentenceTransformer(
        modules=[Transformer(model_folder("bert")), Pooling(32, "max")],
        device="cpu",
        prompts={"query": "query: ", "document": ""},
        default_prompt_name="query",
    )
    model.save_pretrained(str(tmp_path))
    encoder = BiEncoder(str(tmp_path), device="cpu", dtype="float32")
    expected = SentenceTransformer(str(tmp_path), device="cpu").encode_document(TEXTS)
    np.testing.assert_allclose(encoder.embed_passages(TEXTS), expected, rtol=0, atol=1e-5)
    plain = BiEncoder(str(tmp_path), device="cpu", dtype="float32", query_prompt="")
    np.testing.assert_allclose(plain.embed_queries(TEXTS), expected, rtol=0, atol=1e-5)


def test_length_is_held_to_the_models_positions(
    model_folder: Callable[[str], str], tmp_path: Path
) -> None:
    modules = [Transformer(model_folder("roberta")), Pooling(32, "mean")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path))
    encoder = BiEncoder(str(tmp_path), device="cpu", dtype="float32")
    assert encoder.embed_passages(["word " * 2000]).shape == (1, 32)
    assert encoder.rank("q", ["word " * 2000])[0].truncated


def test_wrong_texts_are_named(bi_encoder: BiEncoder) -> None:
    with pytest.raises(InputError, match="the passages are one string"):
        bi_encoder.embed_passages("text")
    with pytest.raises(InputError, match="query 1 is int"):
        bi_encoder.embed_queries(["a", 2])  # type: ignore[list-item]


def test_ranking_is_json_safe_and_input_unchanged(bi_encoder: BiEncoder) -> None:
    passages = ["a fox", "a lone \ud800 surrogate", "\x00"]
    before = copy.deepcopy(passages)
    ranked = bi_encoder.rank("fox", passages)
    assert passages == before
    assert ranked[0].index == 0
    json.dumps([p.to_dict() for p in ranked])


def test_pickling_keeps_the_options(bi_encoder: BiEncoder) -> None:
    twin = pickle.loads(pickle.dumps(bi_encoder))
    np.testing.assert_array_equal(twin.embed_queries(["a"]), bi_encoder.embed_queries(["a"]))


def test_progress_is_shown(bi_encoder: BiEncoder, capfd: pytest.CaptureFixture[str]) -> None:
    bi_encoder.embed_passages(TEXTS, show_progress=True)
    assert "6/6" in capfd.readouterr().err


EMBEDDERS = {
    "bi-encoder": lambda model: BiEncoder(model),
    "langchain": lambda model: GPUEmbeddings(model).embed_query("a"),
    "llamaindex": lambda model: GPUEmbedding(model_name=model).get_query_embedding("a"),
    "chroma": lambda model: GPUEmbeddingFunction(model).embed_query(["a"]),
}


@pytest.mark.parametrize("embedder", EMBEDDERS)
@pytest.mark.parametrize("family", ["bert", "two_labels", "roberta"])
def test_a_cross_encoder_is_refused(
    embedder: str, family: str, model_folder: Callable[[str], str]
) -> None:
    match = (
        r"is no embedder: its architecture is .*ForSequenceClassification.* use it with Reranker"
    )
    with pytest.raises(ModelError, match=match):
        EMBEDDERS[embedder](model_folder(family))


@pytest.mark.parametrize("family", ["bert", "causal_chat"])
def test_a_model_saved_as_a_cross_encoder_is_refused(
    family: str, model_folder: Callable[[str], str], tmp_path: Path
) -> None:
    Reference(model_folder(family), device="cpu").save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match=r"saved it as a cross-encoder.* use it with Reranker"):
        BiEncoder(str(tmp_path))


@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "Qwen3ForCausalLM"])
def test_a_pooling_makes_an_embedder_whatever_the_architecture(
    architecture: str, model_folder: Callable[[str], str], tmp_path: Path
) -> None:
    folder = Path(build(tmp_path, model_folder("bert"), "mean"))
    expected = SentenceTransformer(str(folder), device="cpu").encode_document(TEXTS[:2])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [architecture]}))
    vectors = BiEncoder(str(folder), device="cpu", dtype="float32").embed_passages(TEXTS[:2])
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)
