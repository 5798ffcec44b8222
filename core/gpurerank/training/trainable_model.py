"""Cross-encoders as something to train: loading, adapters, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from torch import nn

from gpurerank.errors import InputError
from gpurerank.models import embedded
from gpurerank.models.blend import Blend
from gpurerank.models.loading import ModelSpec, load_cross_encoder


def load_trainable(
    base: str, *, device: str, max_length: int, new_head: bool, trust_remote_code: bool = False
) -> CrossEncoder:
    """A cross-encoder in float32, ready to train, without dropout.

    The fast attention paths serve only without dropout; on a CPU that doubles the speed.

    Args:
        base: "embedded", a folder or a hub id.
        device: A torch device.
        max_length: Tokens of a pair.
        new_head: Begin with an untrained head on the embedded bi-encoder; with "embedded" alone.
        trust_remote_code: Whether code from the model's repository may run.

    Raises:
        InputError: ``new_head`` with another base.
        ModelError: There is no such model, or it is no cross-encoder.
    """
    if new_head and base != embedded.NAME:
        raise InputError(f"a new head is for 'embedded' alone, not for {base!r}")
    if new_head:
        model = embedded.with_new_head(embedded.verified_base_folder(), device)
    else:
        spec = ModelSpec(
            name=base, device=device, dtype="float32", trust_remote_code=trust_remote_code
        ).resolved()
        model = load_cross_encoder(spec, torch.device(device), torch.float32)
    model.max_seq_length = min(max_length, model.max_seq_length or max_length)
    _without_dropout(model)
    if base == embedded.NAME:
        # The delta that ships holds no word embeddings: they are half of all parameters.
        for name, parameter in embedded.parameters_of(model).items():
            parameter.requires_grad_(".embeddings." not in name)
    return model


def add_lora(model: CrossEncoder, rank: int) -> None:
    """Trains low-rank adapters of every linear layer, and the head, in place of all weights.

    Raises:
        InputError: The package peft is not installed, or ``rank`` is below 1.
    """
    if rank < 1:
        raise InputError(f"the rank of LoRA is {rank}; it must be 1 or more")
    try:
        from peft import LoraConfig, TaskType
    except ImportError as error:
        raise InputError("LoRA needs the package peft: pip install peft") from error
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
    )
    model.add_adapter(config)


def save(model: CrossEncoder, folder: Path, blend: Blend | None) -> None:
    """Writes a folder that Reranker and sentence-transformers both load; adapters are merged."""
    _merge_adapters(model)
    model.save_pretrained(str(folder), safe_serialization=True, create_model_card=False)
    if blend is not None:
        blend.write(folder)


def _without_dropout(model: CrossEncoder) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Where attention is not a module of its own, its layer keeps the probability.
        for name in ("dropout_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _merge_adapters(model: CrossEncoder) -> None:
    transformer: Any = model.model
    if not getattr(transformer, "_hf_peft_config_loaded", False):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(transformer.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            owner = transformer.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], module.get_base_layer())
    transformer._hf_peft_config_loaded = False
