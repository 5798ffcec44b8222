"""Packages a trained model as the embedded cross-encoder that ships in the wheel."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder

from gpurerank.errors import InputError
from gpurerank.models.blend import FILE_NAME, read_blend
from gpurerank.models.embedded import parameters_of, verified_base_folder, with_new_head


def ship(model_folder: Path, delta_file: Path) -> str:
    """Writes the delta of a model trained from "embedded", its checksum and its blend.

    Args:
        model_folder: The folder ``model`` of a run of ``gpurerank train --blend-weight``.
        delta_file: Target; the checksum and the blend are written to its folder.

    Returns:
        The SHA-256 of the delta.

    Raises:
        InputError: The folder has no trained model, or it was trained without a blend.
    """
    if not (model_folder / FILE_NAME).is_file():
        raise InputError(f"{model_folder} has no model that was trained with --blend-weight")
    blend = read_blend(model_folder / FILE_NAME)
    model: CrossEncoder = CrossEncoder(str(model_folder), device="cpu", local_files_only=True)
    digest = write_delta(model, delta_file)
    blend.write(delta_file.parent)
    return digest


def write_delta(trained: CrossEncoder, path: Path) -> str:
    """Writes what training changed, in float16, and the checksum.

    Returns:
        The SHA-256 of the file.
    """
    base = parameters_of(with_new_head(verified_base_folder(), "cpu"))
    delta = {}
    for name, parameter in parameters_of(trained).items():
        value = parameter.detach().cpu().float()
        change = value if name.startswith("classifier.") else value - base[name].float()
        if change.any():
            delta[name] = change.to(torch.float16).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(delta, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".sha256").write_text(digest + "\n", encoding="ascii")
    return digest
