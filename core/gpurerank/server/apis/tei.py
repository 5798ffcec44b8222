"""text-embeddings-inference: rerank, embed and info."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from typing_extensions import NotRequired, TypedDict

from gpurerank.server import operations
from gpurerank.server.embedding_shape import Dimensions
from gpurerank.server.endpoint import Api, Body, Endpoint, Lookup, has_field
from gpurerank.server.fields import (
    NOT_EMPTY,
    Cut,
    Query,
    Schema,
    Text,
    TextList,
    Texts,
    as_list,
    is_query,
)
from gpurerank.server.rerank_shape import value_of
from gpurerank.server.routing import service_of
from gpurerank.server.vector_output import check_dimensions, normalize, shorten

# How Hugging Face names the only label of a model that has one.
_LABEL = "LABEL_0"


PromptName = Annotated[
    Literal["query", "document", "passage"],
    Field(description="Role of the texts, which decides the model's prompt."),
]


class TeiRerankRequest(Schema):
    """text-embeddings-inference's rerank."""

    query: Query
    texts: Texts
    raw_scores: bool | None = Field(default=None, description="Logits in place of scores.")
    return_text: bool | None = None
    truncate: Cut | None = None
    truncation_direction: Text | None = None


class TeiEmbedRequest(Schema):
    """text-embeddings-inference's embed."""

    inputs: Text | TextList
    normalize: bool | None = None
    truncate: Cut | None = None
    truncation_direction: Text | None = None
    prompt_name: PromptName | None = None
    dimensions: Dimensions | None = None


class TeiSimilarityInput(Schema):
    """A sentence and those it is compared with."""

    source_sentence: Text
    sentences: Texts


class TeiSimilarityParameters(Schema):
    """Options of similarity."""

    truncate: Cut | None = None
    truncation_direction: Text | None = None
    prompt_name: PromptName | None = None


class TeiSimilarityRequest(Schema):
    """text-embeddings-inference's similarity."""

    inputs: TeiSimilarityInput
    parameters: TeiSimilarityParameters | None = None


Pair = Annotated[list[Text], Field(fail_fast=True, min_length=2, max_length=2)]


class TeiPredictRequest(Schema):
    """text-embeddings-inference's predict: a pair of texts, or a batch of pairs."""

    inputs: Pair | Annotated[list[Pair], Field(fail_fast=True, json_schema_extra=NOT_EMPTY)]
    raw_scores: bool | None = Field(default=None, description="Logits in place of scores.")
    truncate: Cut | None = None
    truncation_direction: Text | None = None


class TeiPrediction(TypedDict):
    """The score of a label."""

    label: str
    score: float


class TeiTokenizeRequest(Schema):
    """text-embeddings-inference's tokenize, with the tokenizer of the first embedder."""

    inputs: Text | TextList
    add_special_tokens: bool | None = None
    prompt_name: PromptName | None = None


class TeiToken(TypedDict):
    """A token, and where it stands in the text."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TeiRank(TypedDict):
    """One text of a ranking."""

    index: int
    score: float
    text: NotRequired[str]


async def rerank(request: Request, body: TeiRerankRequest) -> list[TeiRank]:
    """text-embeddings-inference's rerank: a list, best first."""
    ranking = await operations.rank(
        service_of(request), request, body.query, body.texts, field="texts"
    )
    ranks: list[TeiRank] = []
    for passage in ranking.passages:
        rank = TeiRank(index=passage.index, score=value_of(passage, logits=bool(body.raw_scores)))
        if body.return_text:
            rank["text"] = passage.passage
        ranks.append(rank)
    return ranks


async def embed(request: Request, body: TeiEmbedRequest) -> list[Any]:
    """text-embeddings-inference's embed; vectors have length 1 unless ``normalize`` is false."""
    service = service_of(request)
    check_dimensions(service.models.embedder(None), body.dimensions, "dimensions")
    embeddings = await operations.embed(
        service,
        request,
        as_list(body.inputs),
        query=is_query(body.prompt_name),
        field="inputs",
    )
    vectors = shorten(embeddings.vectors, body.dimensions)
    return list(vectors if body.normalize is False else normalize(vectors))


async def similarity(request: Request, body: TeiSimilarityRequest) -> list[float]:
    """Cosine similarity of a sentence with each of the others."""
    sentences = [body.inputs.source_sentence, *body.inputs.sentences]
    role = body.parameters.prompt_name if body.parameters else None
    embeddings = await operations.embed(
        service_of(request), request, sentences, query=is_query(role), field="inputs.sentences"
    )
    vectors = normalize(embeddings.vectors)
    similarities: list[float] = (vectors[1:] @ vectors[0]).tolist()
    return similarities


async def predict(
    request: Request, body: TeiPredictRequest
) -> list[TeiPrediction] | list[list[TeiPrediction]]:
    """The label of each pair, which a reranker has one of, with its score."""
    first = body.inputs[0]
    pairs = [body.inputs] if isinstance(first, str) else body.inputs
    scores = await operations.score(
        service_of(request),
        request,
        [str(pair[0]) for pair in pairs],
        [str(pair[1]) for pair in pairs],
        logits=bool(body.raw_scores),
        field="inputs",
    )
    predictions: list[list[TeiPrediction]] = [
        [{"label": _LABEL, "score": value}] for value in scores.values
    ]
    return predictions[0] if isinstance(first, str) else predictions


async def tokenize(request: Request, body: TeiTokenizeRequest) -> list[list[TeiToken]]:
    """The tokens of each text."""
    service = service_of(request)
    texts = as_list(body.inputs)
    encoder = service.models.embedder(None)
    service.check_texts(texts, "inputs")
    pieces = await asyncio.to_thread(
        encoder.tokenize,
        texts,
        query=is_query(body.prompt_name),
        special_tokens=body.add_special_tokens is not False,
        prompted=body.prompt_name is not None,
    )
    return [
        [
            {
                "id": piece.id,
                "text": piece.text,
                "special": piece.special,
                "start": None if piece.special else piece.start,
                "stop": None if piece.special else piece.stop,
            }
            for piece in row
        ]
        for row in pieces
    ]


async def info(request: Request) -> dict[str, Any]:
    """What is served and within which limits."""
    service = service_of(request)
    served, limits = service.models, service.limits
    labels = {"id2label": {"0": _LABEL}, "label2id": {_LABEL: 0}}
    model_type: dict[str, Any] = {"embedding": {"pooling": "mean"}}
    if served.rerankers:
        model_type = {"reranker": labels}
    return {
        "server": "gpurerank",
        "model_id": next(served.names()),
        "model_type": model_type,
        "version": version("gpurerank"),
        "rerankers": list(served.rerankers),
        "embedders": {name: encoder.dim for name, encoder in served.embedders.items()},
        "max_client_batch_size": limits.passages,
        "max_input_length": service.options.max_length,
        "auto_truncate": False,
        "limits": {name: getattr(limits, name) for name in limits.__slots__},
    }


def _has_pairs(body: Body) -> bool:
    inputs = body.get("inputs")
    return isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], list)


API = Api(
    name="text-embeddings-inference",
    prefix="tei",
    endpoints=(
        Endpoint(
            paths=("/rerank",),
            aliases=("/v1/rerank", "/reranking", "/v1/reranking", "/"),
            request=TeiRerankRequest,
            response=list[TeiRank],
            handler=rerank,
            matches=has_field("texts"),
            error_is_text=True,
        ),
        Endpoint(
            paths=("/embed",),
            request=TeiEmbedRequest,
            response=list[list[float]],
            handler=embed,
            error_is_text=True,
        ),
        Endpoint(
            paths=("/similarity",),
            aliases=("/",),
            request=TeiSimilarityRequest,
            response=list[float],
            handler=similarity,
            matches=lambda body: isinstance(body.get("inputs"), dict),
            error_is_text=True,
        ),
        Endpoint(
            paths=("/predict",),
            aliases=("/",),
            request=TeiPredictRequest,
            response=list[TeiPrediction] | list[list[TeiPrediction]],
            handler=predict,
            matches=_has_pairs,
            error_is_text=True,
        ),
        Endpoint(
            paths=("/tokenize",),
            request=TeiTokenizeRequest,
            response=list[list[TeiToken]],
            handler=tokenize,
            error_is_text=True,
        ),
        # Hugging Face's clients post to the base URL itself.
        Endpoint(
            paths=("/",),
            request=TeiEmbedRequest,
            response=list[list[float]],
            handler=embed,
            error_is_text=True,
        ),
    ),
    lookups=(Lookup(path="/info", handler=info),),
)
