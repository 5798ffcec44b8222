"""A text embedder, wherever its model runs."""

from __future__ import annotations

from gpurerank.bi_encoder import BiEncoder
from gpurerank.errors import InputError
from gpurerank.remote.address import check_local_options
from gpurerank.remote.embedder import RemoteEmbedder
from gpurerank.types import Secret


def open_embedder(
    model: str = "embedded",
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    max_length: int | None = None,
    query_prompt: str | None = None,
    trust_remote_code: bool = False,
    base_url: str | None = None,
    api_key: str | Secret | None = None,
) -> BiEncoder | RemoteEmbedder:
    """A BiEncoder, or with ``base_url`` a RemoteEmbedder: what plugins embed with.

    Args:
        model: As in BiEncoder; with ``base_url`` the name that the server knows, and "embedded",
            the default, for the one that it serves.
        device: As in BiEncoder; this and those below, but for ``query_prompt``, are refused with
            ``base_url``.
        dtype: As in BiEncoder.
        revision: As in BiEncoder.
        max_length: As in BiEncoder.
        query_prompt: As in BiEncoder and RemoteEmbedder.
        trust_remote_code: As in BiEncoder.
        base_url: A server that embeds in place of a model in this process.
        api_key: Of that server.

    Raises:
        InputError: An option is wrong.
        ModelError: The model cannot be loaded.
    """
    if base_url is None:
        if api_key is not None:
            raise InputError("api_key is given without base_url; name the server that takes it")
        return BiEncoder(
            model,
            device=device,
            dtype=dtype,
            revision=revision,
            max_length=max_length,
            query_prompt=query_prompt,
            trust_remote_code=trust_remote_code,
        )
    check_local_options(
        device=(device, "auto"),
        dtype=(dtype, "auto"),
        revision=(revision, None),
        max_length=(max_length, None),
        trust_remote_code=(trust_remote_code, False),
    )
    return RemoteEmbedder(
        base_url,
        api_key=api_key,
        model=None if model == "embedded" else model,
        query_prompt=query_prompt,
    )
