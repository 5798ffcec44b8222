"""Infinity, whose paths lie below a prefix that its operator chooses."""

from gpurerank.remote.providers.provider import (
    Body,
    EmbedApi,
    Provider,
    RerankApi,
    RerankRequest,
    documents_body,
    openai_embed_body,
)


def _rerank_body(request: RerankRequest) -> Body:
    return documents_body(request, return_documents=False, raw_scores=request.logits)


PROVIDER = Provider(
    name="infinity",
    owned_by="infinity",
    rerank=RerankApi(path="rerank", body=_rerank_body),
    embed=EmbedApi(path="embeddings", body=openai_embed_body),
)
