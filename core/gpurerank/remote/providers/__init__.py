"""One module for each kind of server, and the registry of them.

To add a provider, write a module with a ``PROVIDER`` and add it to ``PROVIDERS``.
"""

from __future__ import annotations

from gpurerank.remote.providers import (
    cohere,
    gpurerank_server,
    infinity,
    jina,
    openai,
    text_embeddings_inference,
    vllm,
    voyage,
)
from gpurerank.remote.providers.provider import EmbedApi, Provider, RerankApi

PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        gpurerank_server.PROVIDER,
        text_embeddings_inference.PROVIDER,
        vllm.PROVIDER,
        infinity.PROVIDER,
        openai.PROVIDER,
        cohere.PROVIDER,
        cohere.PROVIDER_V1,
        jina.PROVIDER,
        voyage.PROVIDER,
    )
}
RERANK_APIS: dict[str, RerankApi] = {
    name: provider.rerank for name, provider in PROVIDERS.items() if provider.rerank is not None
}
EMBED_APIS: dict[str, EmbedApi] = {
    name: provider.embed for name, provider in PROVIDERS.items() if provider.embed is not None
}
