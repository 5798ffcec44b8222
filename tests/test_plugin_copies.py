"""What the plugins return is the caller's to change: nothing inside is shared with the input."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode

from gpurerank import Reranker
from langchain_gpurerank import GPURerank
from llamaindex_gpurerank import GPURerank as NodeReranker
from tests.conftest import WordOverlap

QUERY = "where is the spanner?"


@pytest.fixture
def ranker(overlap: WordOverlap) -> Reranker:
    return Reranker.from_scorer(overlap, name="overlap")


def test_documents_share_nothing_with_what_went_in(ranker: Reranker) -> None:
    given = [Document("in the drawer", metadata={"tags": ["a", {"b": [1]}]})]
    before = copy.deepcopy(given)
    (found,) = GPURerank(ranker=ranker).compress_documents(given, QUERY)
    found.metadata["tags"][1]["b"].append("changed")
    found.metadata["tags"].append("changed")
    assert given == before
    (again,) = GPURerank(ranker=ranker).compress_documents([found], QUERY)
    again.metadata["tags"].append("changed again")
    assert found.metadata["tags"][-1] == "changed"


def test_nodes_share_nothing_with_what_went_in(ranker: Reranker) -> None:
    source = RelatedNodeInfo(node_id="whole", metadata={"pages": [1]})
    node = TextNode(
        text="in the drawer",
        metadata={"tags": ["a", {"b": [1]}]},
        embedding=[0.5, 0.25],
        relationships={NodeRelationship.SOURCE: source},
        excluded_llm_metadata_keys=["tags"],
    )
    before = copy.deepcopy(node)
    (found,) = NodeReranker(ranker=ranker).postprocess_nodes(
        [NodeWithScore(node=node)], None, QUERY
    )
    twin: Any = found.node
    assert twin == before
    twin.metadata["tags"][1]["b"].append("changed")
    twin.embedding.append(1.0)
    twin.relationships[NodeRelationship.SOURCE].metadata["pages"].append(2)
    twin.relationships[NodeRelationship.NEXT] = source
    twin.excluded_llm_metadata_keys.append("changed")
    assert node == before


def test_only_an_object_that_cannot_be_copied_is_shared(ranker: Reranker) -> None:
    lock = threading.Lock()
    metadata = {"connection": lock, "tags": ["a"]}
    (found,) = GPURerank(ranker=ranker).compress_documents(
        [Document("in the drawer", metadata=metadata)], QUERY
    )
    node = TextNode(text="in the drawer", metadata=metadata)
    (scored,) = NodeReranker(ranker=ranker).postprocess_nodes([node], query_str=QUERY)
    for twin in (found.metadata, scored.node.metadata):
        assert twin["connection"] is lock
        assert twin["tags"] == ["a"]
        assert twin["tags"] is not metadata["tags"]
