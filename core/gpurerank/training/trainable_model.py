"""Loading, adapting and saving of cross-encoders for training."""

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
    """Loads a cross-encoder in float32, with dropout switched off.

    The fast attention kernels take no dropout; without it a step on a CPU takes half the time.

    Args:
        base: "embedded", a folder or a hub id.
        device: A torch device.
        max_length: Maximum tokens per pair.
        new_head: Start from the embedded bi-encoder with an untrained head; needs the base
            "embedded".
        trust_remote_code: Whether code from the model's repository may run.

    Raises:
        ModelError: The model does not exist, or is not a cross-encoder.
    """
    if new_head:
        model = embedded.with_new_head(embedded.verified_base_folder(), device)
    else:
        # float32, because bfloat16 rounds away updates as small as those of fine-tuning.
        spec = ModelSpec(
            name=base, device=device, dtype="float32", trust_remote_code=trust_remote_code
        ).resolved()
        model = load_cross_encoder(spec, torch.device(device), torch.float32)
    # Never above the limit of the base, whose positions end there.
    model.max_seq_length = min(max_length, model.max_seq_length or max_length)
    _disable_dropout(model)
    if base == embedded.NAME:
        # The delta that ships holds no word embeddings: they are half of all parameters.
        for name, parameter in embedded.parameters_of(model).items():
            parameter.requires_grad_(".embeddings." not in name)
    return model


def add_lora(model: CrossEncoder, rank: int) -> None:
    """Freezes all weights but the head, and adds trainable adapters to every linear layer.

    Raises:
        InputError: The package peft is not installed.
    """
    try:
        from peft import LoraConfig, TaskType
    except ImportError as error:
        raise InputError("lora_rank needs the package peft: pip install peft") from error
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=rank,
        # LoRA scales its product by alpha / rank, which is 2 at every rank here.
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
    )
    model.add_adapter(config)


def save_trained(model: CrossEncoder, folder: Path, blend: Blend | None) -> None:
    """Writes a folder that Reranker and sentence-transformers load; adapters are merged."""
    _merge_adapters(model)
    model.save_pretrained(str(folder), safe_serialization=True, create_model_card=False)
    if blend is not None:
        blend.write(folder)


def _disable_dropout(model: CrossEncoder) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Functional attention keeps the probability as a plain attribute of its layer.
        for name in ("dropout_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _merge_adapters(model: CrossEncoder) -> None:
    """Adds LoRA's low-rank products to the weights and removes the adapter layers."""
    transformer: Any = model.model
    if not getattr(transformer, "_hf_peft_config_loaded", False):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(transformer.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent_name, _, attribute = name.rpartition(".")
            setattr(transformer.get_submodule(parent_name), attribute, module.get_base_layer())
    # Otherwise transformers would save adapter weights in place of the merged ones.
    transformer._hf_peft_config_loaded = False
