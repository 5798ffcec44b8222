"""Loading models through sentence-transformers, with errors that say what to do."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from safetensors import SafetensorError
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoConfig
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from gpurerank.errors import InputError, ModelError, ModelNotFoundError, WeightsError
from gpurerank.model_names import check_path
from gpurerank.models import devices, embedded
from gpurerank.models.blend import FILE_NAME as BLEND_FILE
from gpurerank.models.blend import Blend, read_blend

_HEADS = ("ForSequenceClassification", "ForCausalLM", "ForConditionalGeneration")


class _OnDevice(Protocol):
    device: torch.device
    packed: bool


Copy = TypeVar("Copy", bound=_OnDevice)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything that decides which weights are loaded and what they return.

    Attributes:
        name: "embedded", a folder, or a hub id.
        device: "auto", a torch device such as "cuda:1", or several, such as "cuda:0,cuda:1": one
            copy of the model each.
        dtype: "auto", "float32", "bfloat16" or "float16".
        revision: Branch, tag or commit on the hub.
        max_length: Tokens of one sequence, special tokens included; None is the model's own limit.
        instruction: Prompt or task description, for models that take one.
        positive_label: Which of two labels means relevant.
        trust_remote_code: Whether code from the model's repository may run.
    """

    name: str
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    max_length: int | None = None
    instruction: str | None = None
    positive_label: int | None = None
    trust_remote_code: bool = False

    def check(self) -> None:
        """Checks what can be checked without the model.

        Raises:
            InputError: A value that no model could take.
            ModelNotFoundError: The name is a path and no folder is there.
        """
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(
                f"the model name is {self.name!r}; give a hub id, a folder or 'embedded'"
            )
        check_path(self.name)
        if self.max_length is not None and self.max_length < 8:
            raise InputError(f"max_length is {self.max_length}; a pair needs at least 8 tokens")
        if self.positive_label not in (None, 0, 1):
            raise InputError(f"positive_label is {self.positive_label!r}; it must be 0 or 1")

    def resolved(self) -> ModelSpec:
        """The same with the device and the dtype that "auto" stands for.

        Raises:
            InputError: A value that no model could take, or a device that is not here.
        """
        self.check()
        found = [devices.resolve_device(name.strip()) for name in self.device.split(",")]
        dtype = devices.resolve_dtype(self.dtype, found[0])
        device = ",".join(str(each) for each in found)
        return replace(self, device=device, dtype=devices.dtype_name(dtype))

    def on_each_device(self) -> list[ModelSpec]:
        """The same for every device by itself."""
        names = self.device.split(",")
        if "cpu" in names:
            devices.respect_cpu_quota()
        return [replace(self, device=name) for name in names]


def load_cross_encoder(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> CrossEncoder:
    """The cross-encoder of a spec, in evaluation mode.

    Raises:
        ModelNotFoundError: There is no such model here or on the hub.
        ModelError: It is not a model that gives one relevance score.
    """
    if spec.name == embedded.NAME:
        with quiet():
            model = embedded.load_cross_encoder(str(device), dtype)
    else:
        _check_is_reranker(spec)
        with quiet(bars=not Path(spec.name).is_dir()), readable_errors(spec):
            model = CrossEncoder(spec.name, **_options(spec, device, dtype))
    _check_labels(spec, model)
    return model.eval()


def load_sentence_transformer(
    spec: ModelSpec, device: torch.device, dtype: torch.dtype
) -> SentenceTransformer:
    """The bi-encoder of a spec, in evaluation mode.

    Raises:
        ModelNotFoundError: There is no such model here or on the hub.
        ModelError: The model is a cross-encoder.
    """
    options = _options(spec, device, dtype)
    name = spec.name
    if name == embedded.NAME:
        name = str(embedded.verified_base_folder())
        options["local_files_only"] = True
    else:
        _check_is_embedder(spec)
    with quiet(bars=not Path(name).is_dir()), readable_errors(spec):
        return SentenceTransformer(name, **options).eval()


def alike(models: list[Copy]) -> list[Copy]:
    """Copies of one model that may share batches.

    Raises:
        InputError: They are on devices of different kinds, which lay batches out differently.
    """
    kinds = {(model.device.type, model.packed) for model in models}
    if len(kinds) > 1:
        names = ", ".join(sorted(str(model.device) for model in models))
        raise InputError(f"the devices are {names}; copies of a model need devices of one kind")
    return models


def _options(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "local_files_only": not hub_is_reachable(),
        "device": str(device),
        "revision": spec.revision,
        "trust_remote_code": spec.trust_remote_code,
        "model_kwargs": {"torch_dtype": dtype, "use_safetensors": True},
    }


def fingerprint(spec: ModelSpec, config: Any) -> str:
    """What changes when the weights behind a name do; scores on disk are kept under it."""
    if spec.name == embedded.NAME:
        return f"{embedded.BASE_SHA256} {embedded.delta_sha256()}"
    folder = Path(spec.name)
    if folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return " ".join(f"{f.name}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files)
    return str(getattr(config, "_commit_hash", None))


def load_blend(spec: ModelSpec) -> Blend | None:
    """How a cross-encoder's logit is blended with a bi-encoder's similarity; None for not at all.

    Raises:
        WeightsError: The model says so in a way that cannot be read.
    """
    if spec.name == embedded.NAME:
        path = embedded.DELTA_FILE.with_name(BLEND_FILE)
        return read_blend(path) if path.is_file() else None
    found = _file_of(spec, BLEND_FILE)
    return None if found is None else read_blend(found)


def _check_is_reranker(spec: ModelSpec) -> None:
    """A model without a trained head would load with a random one and score at random."""
    if _saved_as_cross_encoder(spec):
        return
    with quiet(), readable_errors(spec):
        config = AutoConfig.from_pretrained(
            spec.name,
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            local_files_only=not hub_is_reachable(),
        )
    architectures = tuple(config.architectures or ())
    if not any(name.endswith(_HEADS) for name in architectures):
        raise ModelError(
            f"{spec.name!r} is no reranker: its architecture is"
            f" {', '.join(architectures) or 'not stated'}, without a sequence-classification or"
            " causal head; use it as BiEncoder, or choose a cross-encoder"
        )


def _check_is_embedder(spec: ModelSpec) -> None:
    """A cross-encoder would load as an embedder, and its pooled vectors would mean nothing.

    A repository that lists modules behind the transformer, such as a pooling, is an embedder
    whatever its architecture; of any other, a classification head shows that it scores pairs.
    """
    if _saved_as_cross_encoder(spec):
        reason = "sentence-transformers saved it as a cross-encoder"
    else:
        modules = _read_json(spec, "modules.json")
        config = _read_json(spec, "config.json")
        architectures = config.get("architectures") or [] if isinstance(config, dict) else []
        heads = [name for name in architectures if name.endswith("ForSequenceClassification")]
        if not heads or (isinstance(modules, list) and len(modules) > 1):
            return
        reason = f"its architecture is {', '.join(heads)} and it has no modules.json with a pooling"
    raise ModelError(
        f"{spec.name!r} is no embedder: {reason}, so it scores pairs of texts; use it with"
        " Reranker, or choose a bi-encoder"
    )


def _saved_as_cross_encoder(spec: ModelSpec) -> bool:
    """Whether sentence-transformers saved it as a cross-encoder, of whatever modules."""
    saved = _read_json(spec, "config_sentence_transformers.json")
    return isinstance(saved, dict) and saved.get("model_type") == "CrossEncoder"


def _read_json(spec: ModelSpec, name: str) -> Any:
    """The content of a JSON file of a model; None where it has no such file."""
    path = _file_of(spec, name)
    if path is None:
        return None
    with readable_errors(spec):
        return json.loads(path.read_text(encoding="utf-8"))


def _file_of(spec: ModelSpec, name: str) -> Path | None:
    """A file of a model in a folder or on the hub; None where it has no such file."""
    with quiet(), readable_errors(spec):
        path = cached_file(
            spec.name,
            name,
            revision=spec.revision,
            local_files_only=not hub_is_reachable(),
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    return None if path is None else Path(path)


def _check_labels(spec: ModelSpec, model: CrossEncoder) -> None:
    labels = model.num_labels
    names = getattr(model.config, "id2label", None) or {}
    listed = ", ".join(f"{i}: {name}" for i, name in sorted(names.items())[:5])
    if labels > 2:
        raise ModelError(
            f"{spec.name!r} has {labels} labels ({listed}); a reranker has one, or two with"
            " positive_label"
        )
    if labels == 2 and spec.positive_label is None:
        raise ModelError(
            f"{spec.name!r} has two labels ({listed}); say which one means relevant with"
            " positive_label=0 or positive_label=1"
        )
    if labels == 1 and spec.positive_label is not None:
        raise ModelError(f"{spec.name!r} has one label; leave positive_label out")


def hub_is_reachable() -> bool:
    """Whether it makes sense to ask the hub; without a network its client retries for a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True  # the proxy resolves the name
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


@contextmanager
def readable_errors(spec: ModelSpec) -> Iterator[None]:
    """Turns what the hub and transformers raise for a missing model into one clear error."""
    try:
        yield
    except SafetensorError as error:
        raise WeightsError(f"the weights of {spec.name!r} are damaged: {error}") from error
    except (HFValidationError, HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = "the folder" if Path(spec.name).exists() else "the model"
        raise ModelNotFoundError(
            f"{where} {spec.name!r} cannot be loaded ({reason[:200]}). Without a network use"
            " 'embedded', which ships with the package, or the path of a local folder"
        ) from error
    except (ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f"{spec.name!r} cannot be loaded: {str(error)[:400]}") from error


@contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
    """Silences load reports of transformers, and its bars unless a download may need them."""
    verbosity = transformers_logging.get_verbosity()
    shown = transformers_logging.is_progress_bar_enabled()
    hub_shown = not are_progress_bars_disabled()
    transformers_logging.set_verbosity_error()
    if not bars:
        transformers_logging.disable_progress_bar()
    ours = logging.getLogger("sentence_transformers")
    level = ours.level
    ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        ours.setLevel(level)
        if shown and not bars:
            transformers_logging.enable_progress_bar()
        if not bars:
            (enable_progress_bars if hub_shown else disable_progress_bars)()
