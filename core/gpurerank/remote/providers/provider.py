"""What a provider is: how its servers are recognised, and how its requests are built.

A provider is data and one or two functions that build a request body. Responses differ less and
are read in ``responses.py``, whoever sent them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]

# About 100,000 tokens: below what hosted services take in one request, and below the 2 MB that
# text-embeddings-inference takes.
_MAX_CHARACTERS = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """One request for scores.

    Attributes:
        model: Name of the model; None for the one that the server serves.
        query: The query of all documents.
        documents: What is scored; every one of them needs a score.
        truncate: Whether the server may cut what is too long for its model.
        logits: Whether to ask for logits, where the provider can return them.
    """

    model: str | None
    query: str
    documents: Sequence[str]
    truncate: bool
    logits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """One request for vectors.

    Attributes:
        model: Name of the model; None for the one that the server serves.
        texts: What is embedded.
        is_query: Whether the texts are queries, else passages.
    """

    model: str | None
    texts: Sequence[str]
    is_query: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankApi:
    """How a provider is asked for scores.

    Attributes:
        path: Below the server's root; without a leading slash, below the base URL as given.
        body: Builds the JSON body of a request.
        max_documents: Most documents in one request.
        max_characters: Most characters of all documents in one request.
    """

    path: str
    body: Callable[[RerankRequest], Body]
    max_documents: int = 1000
    max_characters: int = _MAX_CHARACTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedApi:
    """How a provider is asked for vectors.

    Attributes:
        path: Below the server's root; without a leading slash, below the base URL as given.
        body: Builds the JSON body of a request.
        max_texts: Most texts in one request.
        max_characters: Most characters of all texts in one request.
        knows_roles: Whether it distinguishes queries from passages, and so sets its own prompts.
    """

    path: str
    body: Callable[[EmbedRequest], Body]
    max_texts: int = 256
    max_characters: int = _MAX_CHARACTERS
    knows_roles: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A kind of server.

    Attributes:
        name: Value of the ``api`` option.
        hosts: Host names of the provider's own service, which need no discovery.
        owned_by: What its list of models says in ``owned_by``; None where it does not say.
        rerank: How it is asked for scores; None if it gives none.
        embed: How it is asked for vectors; None if it gives none.
    """

    name: str
    hosts: tuple[str, ...] = ()
    owned_by: str | None = None
    rerank: RerankApi | None = None
    embed: EmbedApi | None = None


def with_model(model: str | None, **body: Any) -> Body:
    """A body that names the model, where there is a name."""
    return body if model is None else {"model": model, **body}


def documents_body(request: RerankRequest, **more: Any) -> Body:
    """The body of Cohere's rerank, which several providers share, and more fields."""
    return with_model(
        request.model,
        query=request.query,
        documents=list(request.documents),
        # Some servers return only a few results unless they are told how many.
        top_n=len(request.documents),
        **more,
    )


def openai_embed_body(request: EmbedRequest) -> Body:
    """The body of OpenAI's embeddings, which several providers share."""
    return with_model(request.model, input=list(request.texts), encoding_format="base64")


def cohere_embed_body(request: EmbedRequest) -> Body:
    """The body of Cohere's embed, version 2."""
    return with_model(
        request.model,
        texts=list(request.texts),
        input_type="search_query" if request.is_query else "search_document",
        embedding_types=["float"],
        truncate="END",
    )
