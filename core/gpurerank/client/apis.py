"""What each kind of server is asked for scores and for vectors.

Each shape is that of the server's own source or reference; what comes back differs less, and is
read in ``answers.py`` without regard to who sent it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]

# About 100,000 tokens: below what hosted servers take in one request, and below the 2 MB that
# text-embeddings-inference takes.
_CHARACTERS = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked in one request for scores.

    Attributes:
        model: None for the one that the server serves.
        query: The query of all documents.
        documents: What is scored; every one of them is to be answered.
        truncate: Whether the server may cut what is too long for its model.
        logits: Whether the server is asked for logits, where it can be.
    """

    model: str | None
    query: str
    documents: Sequence[str]
    truncate: bool
    logits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What is asked in one request for vectors."""

    model: str | None
    texts: Sequence[str]
    is_query: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankApi:
    """How one kind of server is asked for scores.

    Attributes:
        path: Below the root, or without a slash below the base URL as it was given.
        body: The request of a question.
        documents: Most of one request.
        characters: Most of one request, all documents together.
    """

    path: str
    body: Callable[[Question], Body]
    documents: int = 1000
    characters: int = _CHARACTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedApi:
    """How one kind of server is asked for vectors.

    Attributes:
        path: Below the root, or without a slash below the base URL as it was given.
        body: The request for texts.
        texts: Most of one request.
        characters: Most of one request, all texts together.
        knows_roles: Whether it is told queries from passages, and so sets its own prompts.
    """

    path: str
    body: Callable[[Texts], Body]
    texts: int = 256
    characters: int = _CHARACTERS
    knows_roles: bool = False


def _with_model(model: str | None, **body: Any) -> Body:
    return body if model is None else {"model": model, **body}


def _documents(asked: Question, **more: Any) -> Body:
    # Some servers return fewer than all unless they are told how many.
    most = {"top_n": len(asked.documents)}
    return _with_model(
        asked.model, query=asked.query, documents=list(asked.documents), **most, **more
    )


def _v1(asked: Question) -> Body:
    return _documents(asked, return_documents=False)


def _tei_rerank(asked: Question) -> Body:
    return {
        "query": asked.query,
        "texts": list(asked.documents),
        "truncate": asked.truncate,
        "raw_scores": asked.logits,
        "return_text": False,
    }


def _vllm_score(asked: Question) -> Body:
    # Not /rerank, which sends every document back.
    more: Body = {"truncate_prompt_tokens": -1} if asked.truncate else {}
    if asked.logits:
        more["use_activation"] = False
    return _with_model(asked.model, text_1=asked.query, text_2=list(asked.documents), **more)


def _infinity_rerank(asked: Question) -> Body:
    return _documents(asked, return_documents=False, raw_scores=asked.logits)


def _voyage_rerank(asked: Question) -> Body:
    return _with_model(
        asked.model,
        query=asked.query,
        documents=list(asked.documents),
        top_k=len(asked.documents),
        return_documents=False,
        truncation=asked.truncate,
    )


RERANK_APIS = {
    "gpurerank": RerankApi(path="/v2/rerank", body=_documents, characters=4_000_000),
    "tei": RerankApi(path="/rerank", body=_tei_rerank, documents=32),
    "vllm": RerankApi(path="/score", body=_vllm_score),
    "infinity": RerankApi(path="rerank", body=_infinity_rerank),
    "cohere": RerankApi(path="/v2/rerank", body=_documents),
    "cohere_v1": RerankApi(path="/v1/rerank", body=_v1),
    "jina": RerankApi(path="/v1/rerank", body=_v1),
    "voyage": RerankApi(path="/v1/rerank", body=_voyage_rerank),
}


def _openai_embed(asked: Texts) -> Body:
    return _with_model(asked.model, input=list(asked.texts), encoding_format="base64")


def _vllm_embed(asked: Texts) -> Body:
    return {**_openai_embed(asked), "truncate_prompt_tokens": -1}


def _tei_embed(asked: Texts) -> Body:
    return {"inputs": list(asked.texts), "truncate": True, "normalize": True}


def _jina_embed(asked: Texts) -> Body:
    task = "retrieval.query" if asked.is_query else "retrieval.passage"
    return _with_model(
        asked.model, input=list(asked.texts), task=task, embedding_type="base64", truncate=True
    )


def _voyage_embed(asked: Texts) -> Body:
    role = "query" if asked.is_query else "document"
    return {**_openai_embed(asked), "input_type": role, "truncation": True}


def _cohere_embed(asked: Texts) -> Body:
    return _with_model(
        asked.model,
        texts=list(asked.texts),
        input_type="search_query" if asked.is_query else "search_document",
        embedding_types=["float"],
        truncate="END",
    )


EMBED_APIS = {
    "gpurerank": EmbedApi(path="/v2/embed", body=_cohere_embed, knows_roles=True),
    "tei": EmbedApi(path="/embed", body=_tei_embed, texts=32),
    "vllm": EmbedApi(path="/v1/embeddings", body=_vllm_embed),
    "infinity": EmbedApi(path="embeddings", body=_openai_embed),
    "openai": EmbedApi(path="/v1/embeddings", body=_openai_embed),
    "cohere": EmbedApi(path="/v2/embed", body=_cohere_embed, texts=96, knows_roles=True),
    "jina": EmbedApi(path="/v1/embeddings", body=_jina_embed, knows_roles=True),
    "voyage": EmbedApi(path="/v1/embeddings", body=_voyage_embed, texts=128, knows_roles=True),
}
