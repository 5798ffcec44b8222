"""Chroma keeps the embedding function with the collection."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import chromadb
import pytest
from chromadb.api.collection_configuration import UpdateCollectionConfiguration
from chromadb.config import Settings

from gpurerank import BiEncoder, InputError, free_models
from gpurerank.chroma import GPUEmbeddingFunction
from gpurerank.engine.registry import REGISTRY
from tests.time_limits import HANG_S

TEXTS = ["subprocess.run executes a command", "heapq.merge merges inputs", "a brown fox"]


def client(folder: Path) -> chromadb.ClientAPI:
    return chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False))


def test_collection_survives_closing_and_reopening(tmp_path: Path, bi_encoder: BiEncoder) -> None:
    collection = client(tmp_path).create_collection(
        "docs",
        embedding_function=GPUEmbeddingFunction(dtype="float32"),  # type: ignore[arg-type]
    )
    collection.add(ids=["a", "b", "c"], documents=TEXTS)
    # Another process, which names no embedding function: the stored one must serve.
    reopened = f"""
import chromadb, gpurerank.chroma
from chromadb.config import Settings
client = chromadb.PersistentClient({str(tmp_path)!r}, Settings(anonymized_telemetry=False))
collection = client.get_collection("docs")
print(collection.query(query_texts=["run a command"], n_results=1)["ids"][0][0])
collection.add(ids=["d"], documents=["json reads data"])
print(collection.query(query_texts=["read json"], n_results=1)["ids"][0][0])
print(collection.configuration["embedding_function"].get_config()["dtype"])
"""
    result = subprocess.run(
        [sys.executable, "-c", reopened], capture_output=True, text=True, timeout=HANG_S, check=True
    )
    assert result.stdout.split() == ["a", "d", "float32"]


def test_one_load_serves_however_often_chroma_builds(tmp_path: Path) -> None:
    free_models()
    before = REGISTRY.loads
    client(tmp_path).create_collection(
        "docs",
        embedding_function=GPUEmbeddingFunction(max_length=77),  # type: ignore[arg-type]
    ).add(ids=["a", "b", "c"], documents=TEXTS)
    again = client(tmp_path).get_collection("docs")
    again.upsert(ids=["c"], documents=["a red fox"])
    assert again.query(query_texts=["fox"], n_results=1)["ids"] == [["c"]]
    assert REGISTRY.loads == before + 1
    held = REGISTRY.loaded()
    del again
    gc.collect()
    assert REGISTRY.loaded() == held, "dropped, but ready for the next"
    assert free_models() >= 1


def test_one_load_of_each_model_serves_every_framework(tmp_path: Path) -> None:
    script = f"""
import chromadb
from chromadb.config import Settings
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.llms.mock import MockLLM
from llama_index.core.schema import TextNode
from gpurerank import Reranker
from gpurerank.chroma import GPUEmbeddingFunction
from gpurerank.engine.registry import REGISTRY
from langchain_gpurerank import GPUEmbeddings, rerank
from llamaindex_gpurerank import GPUEmbedding, GPURerank

texts = {TEXTS!r}
client = chromadb.PersistentClient({str(tmp_path)!r}, Settings(anonymized_telemetry=False))
collection = client.create_collection("docs", embedding_function=GPUEmbeddingFunction())
collection.add(ids=["a", "b", "c"], documents=texts)
first = collection.query(query_texts=["fox"], n_results=1)["ids"][0][0]
store = InMemoryVectorStore(GPUEmbeddings())
store.add_documents([Document(text) for text in texts])
second = rerank(store.as_retriever(), top_n=1).invoke("fox")[0].page_content
index = VectorStoreIndex([TextNode(text=t) for t in texts], embed_model=GPUEmbedding())
engine = index.as_query_engine(llm=MockLLM(), node_postprocessors=[GPURerank(top_n=1)])
third = engine.query("fox").source_nodes[0].text
print(first, second == third == texts[2], REGISTRY.loads)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG_S
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["c", "True", "2"]


def test_building_is_lazy_and_faithful() -> None:
    function = GPUEmbeddingFunction("nobody/has-this", query_prompt="query: ", max_length=99)
    config = function.get_config()
    assert GPUEmbeddingFunction.build_from_config(config).get_config() == config
    assert function.name() == "gpurerank"
    assert not function.is_legacy()


def test_a_change_of_model_is_refused() -> None:
    function = GPUEmbeddingFunction()
    old = function.get_config()
    function.validate_config_update(old, {**old, "dtype": "float32"})
    with pytest.raises(InputError, match="model cannot change"):
        function.validate_config_update(old, {**old, "model": "another"})
    with pytest.raises(InputError, match="unknown options"):
        GPUEmbeddingFunction.build_from_config({"model": "embedded", "pooling": "cls"})


def in_new_process(folder: Path, body: str) -> list[str]:
    script = f"""
import chromadb
from chromadb.config import Settings
from gpurerank.chroma import GPUEmbeddingFunction
client = chromadb.PersistentClient({str(folder)!r}, Settings(anonymized_telemetry=False))
{body}
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def to_model(model: str) -> UpdateCollectionConfiguration:
    return {"embedding_function": GPUEmbeddingFunction(model)}  # type: ignore[typeddict-item]


def make_docs(folder: Path) -> chromadb.Collection:
    collection = client(folder).create_collection(
        "docs",
        embedding_function=GPUEmbeddingFunction(),  # type: ignore[arg-type]
    )
    collection.add(ids=["a", "b", "c"], documents=TEXTS)
    return collection


def stored_model(collection: chromadb.Collection) -> str:
    return str(collection.configuration_json["embedding_function"]["config"]["model"])


def test_a_refused_change_of_model_is_not_stored(tmp_path: Path, bi_encoder: BiEncoder) -> None:
    collection = make_docs(tmp_path)
    with pytest.raises(
        InputError, match=r"'docs': model cannot change from 'embedded' to 'no/one'"
    ):
        collection.modify(name="renamed", configuration=to_model("no/one"))
    for opened in (collection, client(tmp_path).get_collection("docs")):
        assert stored_model(opened) == "embedded"
        assert opened.query(query_texts=["fox"], n_results=1)["ids"] == [["c"]]
    found = in_new_process(
        tmp_path,
        """
collection = client.get_collection("docs")
print(collection.configuration_json["embedding_function"]["config"]["model"])
print(collection.query(query_texts=["fox"], n_results=1)["ids"][0][0])
""",
    )
    assert found == ["embedded", "c"]


def test_options_that_keep_the_model_can_be_changed(tmp_path: Path, bi_encoder: BiEncoder) -> None:
    collection = make_docs(tmp_path)
    function = GPUEmbeddingFunction(query_prompt="query: ")
    collection.modify(configuration={"embedding_function": function})  # type: ignore[typeddict-item]
    again = client(tmp_path).get_collection("docs")
    config = again.configuration_json["embedding_function"]["config"]
    assert (config["model"], config["query_prompt"]) == ("embedded", "query: ")


def test_another_embedding_function_is_not_replaced_by_ours(tmp_path: Path) -> None:
    client(tmp_path).create_collection("docs")
    with pytest.raises(InputError, match="from 'default' to 'gpurerank'"):
        client(tmp_path).get_collection("docs").modify(configuration=to_model("embedded"))
    stored = client(tmp_path).get_collection("docs").configuration_json["embedding_function"]
    assert stored["name"] == "default"


@pytest.mark.parametrize("opening", ["get_collection", "get_or_create_collection"])
def test_a_collection_opened_with_another_model_is_refused_at_first_use(
    tmp_path: Path, bi_encoder: BiEncoder, opening: str
) -> None:
    make_docs(tmp_path)
    opened = getattr(client(tmp_path), opening)(
        "docs", embedding_function=GPUEmbeddingFunction("no/one")
    )
    with pytest.raises(InputError, match="model cannot change from 'embedded' to 'no/one'"):
        opened.query(query_texts=["fox"])
    with pytest.raises(InputError, match="model cannot change from 'embedded' to 'no/one'"):
        opened.upsert(ids=["a"], documents=["anything"])
    assert opened.get("a")["documents"] == [TEXTS[0]]
    same = getattr(client(tmp_path), opening)("docs", embedding_function=GPUEmbeddingFunction())
    assert same.query(query_texts=["fox"], n_results=1)["ids"] == [["c"]]


def test_a_model_folder_may_have_moved(tmp_path: Path) -> None:
    function = GPUEmbeddingFunction()
    old = {**function.get_config(), "model": "/old/place/tiny"}
    for model in ("/new/place/tiny", str(tmp_path / "tiny")):
        function.validate_config_update(old, {**old, "model": model})
    with pytest.raises(InputError, match="model cannot change"):
        function.validate_config_update(old, {**old, "model": "/new/place/other"})
    hub = {**old, "model": "someone/tiny"}
    with pytest.raises(InputError, match="model cannot change"):
        function.validate_config_update(hub, {**old, "model": "somebody/tiny"})
