"""Options are declared once: every other place has the same names and the same defaults."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import typer

from gpurerank import (
    BiEncoder,
    CrossEncoder,
    RemoteEmbedder,
    RemoteScorer,
    Reranker,
    RerankerOptions,
    RerankSettings,
    open_embedder,
)
from gpurerank.chroma import GPUEmbeddingFunction
from gpurerank.cli import app as command_line
from gpurerank.cluster.arguments import Arguments
from gpurerank.models.loading import ModelSpec
from gpurerank.remote.session import RemoteOptions
from gpurerank.server.options import Limits, ServerOptions
from langchain_gpurerank import GPUCrossEncoder, GPUEmbeddings, rerank
from langchain_gpurerank import GPURerank as LangChainRerank
from langchain_gpurerank.retriever import RerankOptions
from llamaindex_gpurerank import GPUEmbedding
from llamaindex_gpurerank import GPURerank as LlamaIndexRerank

# What a model in this process is loaded with.
MODEL_OPTIONS = ("device", "dtype", "revision", "max_length", "trust_remote_code")


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults of a function's parameters, without self."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    }


def fields(options: type[Any]) -> dict[str, Any]:
    """Names and defaults of a dataclass, or of a pydantic model."""
    if dataclasses.is_dataclass(options):
        return {
            field.name: field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory()
            for field in dataclasses.fields(options)
        }
    return {name: field.get_default() for name, field in options.model_fields.items()}


RERANKER = fields(RerankerOptions)


def same_defaults(place: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``place`` that also stand in ``source`` and differ there."""
    return {
        name: (default, source[name])
        for name, default in place.items()
        if name in source and default != source[name]
    }


def test_reranker_takes_exactly_its_options() -> None:
    assert parameters(Reranker.__init__) == RERANKER


def test_plugins_take_every_option_of_the_reranker() -> None:
    settings = fields(RerankSettings)
    assert set(RERANKER) <= set(settings)
    assert same_defaults(settings, RERANKER) == {}


@pytest.mark.parametrize("plugin", [LangChainRerank, LlamaIndexRerank])
def test_plugin_classes_inherit_the_settings(plugin: type[Any]) -> None:
    plugin_fields = fields(plugin)
    assert set(fields(RerankSettings)) <= set(plugin_fields)
    assert same_defaults(plugin_fields, fields(RerankSettings)) == {}


def test_langchain_rerank_takes_every_option_of_the_compressor() -> None:
    assert set(RerankOptions.__annotations__) | {"top_n"} == set(LangChainRerank.model_fields)
    assert parameters(rerank)["top_n"] == LangChainRerank.model_fields["top_n"].default


def test_langchain_cross_encoder_takes_what_scoring_needs() -> None:
    # It scores pairs: it keeps no order, and LangChain has no place for a deadline or a cache.
    left_out = {"timeout_s", "on_error", "cache"}
    cross_encoder = parameters(GPUCrossEncoder.__init__)
    assert set(cross_encoder) == set(RERANKER) - left_out
    assert same_defaults(cross_encoder, RERANKER) == {}


@pytest.mark.parametrize("model_class", [CrossEncoder, BiEncoder])
def test_models_take_every_loading_option(model_class: type[Any]) -> None:
    options = parameters(model_class.__init__)
    assert set(MODEL_OPTIONS) <= set(options)
    specification = fields(ModelSpec)
    assert set(MODEL_OPTIONS) <= set(specification)
    assert {name: options[name] for name in ("device", "dtype")} == {
        "device": RERANKER["device"],
        "dtype": RERANKER["dtype"],
    }


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(parameters(GPUEmbeddings.__init__), id="GPUEmbeddings"),
        pytest.param(fields(GPUEmbedding), id="GPUEmbedding"),
    ],
)
def test_embedders_of_every_framework_take_the_same_options(place: Mapping[str, Any]) -> None:
    options = parameters(open_embedder)
    renamed = {"model_name" if "model_name" in place and n == "model" else n for n in options}
    assert renamed <= set(place)
    assert same_defaults(place, options) == {}
    assert set(parameters(BiEncoder.__init__)) <= set(options)


def test_chroma_function_takes_what_a_collection_can_store() -> None:
    # Chroma stores the options with the collection: no key, and no consent to run remote code.
    left_out = {"api_key", "base_url", "trust_remote_code"}
    chroma = parameters(GPUEmbeddingFunction.__init__)
    assert set(chroma) == set(parameters(open_embedder)) - left_out
    assert same_defaults(chroma, parameters(open_embedder)) == {}


@pytest.mark.parametrize(("remote", "extra"), [(RemoteScorer, {"logits"}), (RemoteEmbedder, set())])
def test_remote_classes_take_every_remote_option(remote: type[Any], extra: set[str]) -> None:
    # The clock is for tests; truncate has a meaning for scores alone, since embedders always do.
    internal = {"clock"} if remote is RemoteScorer else {"clock", "truncate"}
    options = set(parameters(remote.__init__)) - {"query_prompt", "passage_prompt"}
    assert options == (set(fields(RemoteOptions)) - internal) | extra


def test_server_uses_the_defaults_of_the_reranker() -> None:
    server = fields(ServerOptions)
    assert same_defaults({n: server[n] for n in ("device", "dtype", "max_length")}, RERANKER) == {}


def test_serve_command_has_the_servers_defaults() -> None:
    serve = command_defaults("serve")
    limits = {**fields(Limits), "max_passages": Limits().passages}
    assert same_defaults(serve, fields(ServerOptions)) == {}
    assert same_defaults(serve, limits) == {}
    assert serve["max_body_mb"] == Limits().body_bytes >> 20


def test_ray_arguments_cover_the_serve_command() -> None:
    # Where it listens is Serve's; demo, connections and the file with the address need one process.
    own = {"host", "port", "demo", "api_key", "on_ray", "ray_address", "reranker", "embedder"}
    own |= {"allow_origin", "allow_host", "max_connections", "address_file", "drain_s"}
    missing = set(command_defaults("serve")) - own - set(Arguments.model_fields)
    assert missing == set()


def command_defaults(name: str) -> dict[str, Any]:
    """Names and defaults of a command's options."""
    group: Any = typer.main.get_command(command_line)
    command = group.commands[name]
    return {option.name: option.default for option in command.params}
