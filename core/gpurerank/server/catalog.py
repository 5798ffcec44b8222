"""Every API that the server speaks, in order of precedence on shared paths."""

from __future__ import annotations

from gpurerank.server.apis import (
    cohere,
    infinity,
    jina,
    llamacpp,
    native,
    openai,
    tei,
    vllm,
    voyage,
)
from gpurerank.server.routing import model_paths

# vLLM comes last of those that share /rerank and /v1/rerank: it answers what matches no other.
APIS = (
    native.API,
    tei.API,
    infinity.API,
    voyage.API,
    cohere.API,
    jina.API,
    vllm.API,
    llamacpp.API,
    openai.API,
)
MODEL_PATHS = model_paths(APIS)
