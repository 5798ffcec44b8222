"""OpenAI's embeddings, and every server that speaks them and names no other provider."""

from gpurerank.remote.providers.provider import EmbedApi, Provider, openai_embed_body

PROVIDER = Provider(
    name="openai",
    hosts=("api.openai.com",),
    embed=EmbedApi(path="/v1/embeddings", body=openai_embed_body),
)
