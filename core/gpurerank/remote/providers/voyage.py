"""Voyage's rerank and embeddings."""

from gpurerank.remote.providers.provider import (
    Body,
    EmbedApi,
    EmbedRequest,
    Provider,
    RerankApi,
    RerankRequest,
    openai_embed_body,
    with_model,
)


def _rerank_body(request: RerankRequest) -> Body:
    return with_model(
        request.model,
        query=request.query,
        documents=list(request.documents),
        top_k=len(request.documents),
        return_documents=False,
        truncation=request.truncate,
    )


def _embed_body(request: EmbedRequest) -> Body:
    input_type = "query" if request.is_query else "document"
    return {**openai_embed_body(request), "input_type": input_type, "truncation": True}


PROVIDER = Provider(
    name="voyage",
    hosts=("api.voyageai.com",),
    rerank=RerankApi(path="/v1/rerank", body=_rerank_body),
    embed=EmbedApi(path="/v1/embeddings", body=_embed_body, max_texts=128, knows_roles=True),
)
