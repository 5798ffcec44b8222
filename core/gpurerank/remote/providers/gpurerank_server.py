"""This package's own server, which speaks Cohere's version 2."""

from gpurerank.remote.providers.provider import (
    EmbedApi,
    Provider,
    RerankApi,
    cohere_embed_body,
    documents_body,
)

PROVIDER = Provider(
    name="gpurerank",
    owned_by="gpurerank",
    rerank=RerankApi(path="/v2/rerank", body=documents_body, max_characters=4_000_000),
    embed=EmbedApi(path="/v2/embed", body=cohere_embed_body, knows_roles=True),
)
