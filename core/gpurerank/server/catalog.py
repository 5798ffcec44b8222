"""Every API that the server speaks, in order of precedence on shared paths."""

from __future__ import annotations

from gpurerank.server.apis import (
    cohere,
    infinity,
    jina,
    llamacpp,
    mixedbread,
    native,
    nvidia,
    ollama,
    openai,
    tei,
    vllm,
    voyage,
    weaviate,
    xinference,
)
from gpurerank.server.routing import model_paths

# vLLM comes last of those that share /rerank and /v1/rerank: it answers what matches no other.
APIS = (
    native.API,
    tei.API,
    weaviate.API,
    infinity.API,
    xinference.API,
    voyage.API,
    cohere.API,
    jina.API,
    mixedbread.API,
    vllm.API,
    llamacpp.API,
    nvidia.API,
    openai.API,
    ollama.API,
)
# The root is left out: every path ends in it.
MODEL_PATHS = tuple(path for path in model_paths(APIS) if path.rstrip("/"))
