"""Jina; its rerank is also that of LiteLLM, Xinference and llama.cpp."""

from gpurerank.remote.providers.provider import (
    Body,
    EmbedApi,
    EmbedRequest,
    Provider,
    RerankApi,
    RerankRequest,
    documents_body,
    with_model,
)


def _rerank_body(request: RerankRequest) -> Body:
    return documents_body(request, return_documents=False)


def _embed_body(request: EmbedRequest) -> Body:
    return with_model(
        request.model,
        input=list(request.texts),
        task="retrieval.query" if request.is_query else "retrieval.passage",
        embedding_type="base64",
        truncate=True,
    )


PROVIDER = Provider(
    name="jina",
    hosts=("api.jina.ai",),
    rerank=RerankApi(path="/v1/rerank", body=_rerank_body),
    embed=EmbedApi(path="/v1/embeddings", body=_embed_body, knows_roles=True),
)
