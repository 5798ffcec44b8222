"""Loading models through sentence-transformers, with errors that say what to do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from gpurerank.errors import InputError, ModelError, ModelNotFoundError
from gpurerank.models import embedded

_HEADS = ("ForSequenceClassification", "ForCausalLM", "ForConditionalGeneration")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything that decides which weights are loaded and what they return.

    Attributes:
        name: "embedded", a folder, or a hub id.
        device: "auto", or a torch device such as "cuda:1".
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
        """
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(
                f"the model name is {self.name!r}; give a hub id, a folder or 'embedded'"
            )
        if self.max_length is not None and self.max_length < 8:
            raise InputError(f"max_length is {self.max_length}; a pair needs at least 8 tokens")
        if self.positive_label not in (None, 0, 1):
            raise InputError(f"positive_label is {self.positive_label!r}; it must be 0 or 1")


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
        with quiet(), readable_errors(spec):
            model = CrossEncoder(spec.name, **_options(spec, device, dtype))
    return model.eval()


def load_sentence_transformer(
    spec: ModelSpec, device: torch.device, dtype: torch.dtype
) -> SentenceTransformer:
    """The bi-encoder of a spec, in evaluation mode.

    Raises:
        ModelNotFoundError: There is no such model here or on the hub.
    """
    options = _options(spec, device, dtype)
    name = spec.name
    if name == embedded.NAME:
        name = str(embedded.verified_base_folder())
        options["local_files_only"] = True
    with quiet(), readable_errors(spec):
        return SentenceTransformer(name, **options).eval()


def _options(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "device": str(device),
        "revision": spec.revision,
        "trust_remote_code": spec.trust_remote_code,
        "model_kwargs": {"torch_dtype": dtype, "use_safetensors": True},
    }


def _check_is_reranker(spec: ModelSpec) -> None:
    """A model without a trained head would load with a random one and score at random."""
    with quiet(), readable_errors(spec):
        if (Path(spec.name) / "modules.json").is_file():
            return
        config = AutoConfig.from_pretrained(
            spec.name, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    architectures = tuple(config.architectures or ())
    if not any(name.endswith(_HEADS) for name in architectures):
        raise ModelError(
            f"{spec.name!r} is no reranker: its architecture is"
            f" {', '.join(architectures) or 'not stated'}, without a sequence-classification or"
            " causal head; use it as BiEncoder, or choose a cross-encoder"
        )
    labels = config.num_labels
    if architectures[0].endswith("ForSequenceClassification") and labels > 2:
        raise ModelError(
            f"{spec.name!r} has {labels} labels ({_label_names(config)}); a reranker has one,"
            " or two with positive_label"
        )
    if (
        architectures[0].endswith("ForSequenceClassification")
        and labels == 2
        and spec.positive_label is None
    ):
        raise ModelError(
            f"{spec.name!r} has two labels ({_label_names(config)}); say which one means relevant"
            " with positive_label=0 or positive_label=1"
        )


def _label_names(config: Any) -> str:
    return ", ".join(f"{i}: {name}" for i, name in sorted(config.id2label.items())[:5])


@contextmanager
def readable_errors(spec: ModelSpec) -> Iterator[None]:
    """Turns what the hub and transformers raise for a missing model into one clear error."""
    try:
        yield
    except (HFValidationError, HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = "the folder" if Path(spec.name).exists() else "the model"
        raise ModelNotFoundError(
            f"{where} {spec.name!r} cannot be loaded ({reason[:200]}). Without a network use"
            " 'embedded', which ships with the package, or the path of a local folder"
        ) from error
    except (ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{spec.name!r} cannot be loaded: {str(error)[:400]}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silences load reports and bars of transformers while a model is loaded."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    ours = logging.getLogger("sentence_transformers")
    level = ours.level
    ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        ours.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
