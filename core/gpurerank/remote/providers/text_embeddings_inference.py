"""Hugging Face's text-embeddings-inference."""

from gpurerank.remote.providers.provider import (
    Body,
    EmbedApi,
    EmbedRequest,
    Provider,
    RerankApi,
    RerankRequest,
)


def _rerank_body(request: RerankRequest) -> Body:
    return {
        "query": request.query,
        "texts": list(request.documents),
        "truncate": request.truncate,
        "raw_scores": request.logits,
        "return_text": False,
    }


def _embed_body(request: EmbedRequest) -> Body:
    return {"inputs": list(request.texts), "truncate": True, "normalize": True}


PROVIDER = Provider(
    name="tei",
    rerank=RerankApi(path="/rerank", body=_rerank_body, max_documents=32),
    embed=EmbedApi(path="/embed", body=_embed_body, max_texts=32),
)
