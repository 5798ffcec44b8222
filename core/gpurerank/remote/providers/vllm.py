"""vLLM's scores and embeddings."""

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


def _score_body(request: RerankRequest) -> Body:
    # Its /rerank would send every document back.
    more: Body = {"truncate_prompt_tokens": -1} if request.truncate else {}
    if request.logits:
        more["use_activation"] = False
    return with_model(request.model, text_1=request.query, text_2=list(request.documents), **more)


def _embed_body(request: EmbedRequest) -> Body:
    return {**openai_embed_body(request), "truncate_prompt_tokens": -1}


PROVIDER = Provider(
    name="vllm",
    owned_by="vllm",
    rerank=RerankApi(path="/score", body=_score_body),
    embed=EmbedApi(path="/v1/embeddings", body=_embed_body),
)
