"""Cohere's rerank, versions 1 and 2, and its embed, version 2."""

from gpurerank.remote.providers.provider import (
    Body,
    EmbedApi,
    Provider,
    RerankApi,
    RerankRequest,
    cohere_embed_body,
    documents_body,
)


def _rerank_v1_body(request: RerankRequest) -> Body:
    return documents_body(request, return_documents=False)


PROVIDER = Provider(
    name="cohere",
    hosts=("api.cohere.com", "api.cohere.ai"),
    rerank=RerankApi(path="/v2/rerank", body=documents_body),
    embed=EmbedApi(path="/v2/embed", body=cohere_embed_body, max_texts=96, knows_roles=True),
)
PROVIDER_V1 = Provider(name="cohere_v1", rerank=RerankApi(path="/v1/rerank", body=_rerank_v1_body))
