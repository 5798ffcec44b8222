"""Other ways to run the same cross-encoder: tuned sentence-transformers, transformers, OpenVINO."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.batch_size_search import find_fastest
from benchmarks.exact_text import ExactTextGenerator
from benchmarks.memory import available_bytes
from benchmarks.peer_report import PeerContenderRecord, PeerModelRecord
from gpurerank.benchmark.hardware_floor import measure_matrix_rates
from gpurerank.benchmark.implementations import (
    Contender,
    cross_encoder_contender,
    gpurerank_contender,
    load_cross_encoder,
    rank_scores,
)
from gpurerank.benchmark.model_under_test import ModelUnderTest, summarize
from gpurerank.benchmark.synthetic_text import REALISTIC, Request
from gpurerank.models.devices import cpu_multiplies_bfloat16
from gpurerank.models.loading import quiet

CACHED = "gpurerank, cached"
GPURERANK_FLOAT32 = "gpurerank, float32"
TRANSFORMERS = "transformers"
OPENVINO = "OpenVINO"
DEFAULT_BATCH_SIZE = 32
SEARCH_PAIRS = {"cpu": 64, "cuda": 512}
# A search takes at most so many seconds at the floor, if its pairs have so many tokens.
SEARCH_S = 3.0
TYPICAL_TOKENS = 140


def load_peers(model: ModelUnderTest, record: PeerModelRecord) -> None:
    """Adds all contenders to a model that has gpurerank, and records how they are set up."""
    model.texts = ExactTextGenerator(model.texts.tokenizer, model.max_length)
    _measure_device(model)
    ours = model.contenders[0]
    cached = replace(
        ours,
        name=CACHED,
        setting=f"{ours.setting}, the same passages again",
        close=lambda: None,
        is_primed=True,
    )
    model.contenders.append(cached)
    if model.dtype != "float32":
        model.log("loading gpurerank in float32")
        float32 = gpurerank_contender(model.folder, model.device, "float32", model.max_length)
        model.contenders.append(replace(float32, name=GPURERANK_FLOAT32))
    model.log("loading sentence-transformers")
    reference = load_cross_encoder(model.folder, model.device, "float32", model.max_length)
    model.contenders.append(cross_encoder_contender(reference, "float32", DEFAULT_BATCH_SIZE))
    model.log("searching the fastest setting of sentence-transformers")
    tuned, searched = find_fastest(
        model.folder,
        model.device,
        half_formats(model.device, model.options.dtype),
        model.max_length,
        reference,
        _search_request(model),
        model.options.limit_s,
    )
    model.contenders.append(tuned)
    if _has_room(model.folder, model.device):
        model.log("loading transformers")
        model.contenders.append(
            transformers_contender(model.folder, model.device, model.max_length)
        )
    else:
        model.note("transformers left out: not enough memory for another copy of the model")
    _add_openvino(model, tuned)
    record.contenders += [
        PeerContenderRecord(c.name, c.setting, c.dtype, searched if c is tuned else [])
        for c in model.contenders
    ]


def half_formats(device: torch.device, dtype: str) -> list[str]:
    """The 16-bit formats that the hardware multiplies in, or the one that was chosen."""
    if dtype != "auto":
        return [dtype] if dtype != "float32" else []
    if device.type == "cuda":
        bfloat16 = ["bfloat16"] if torch.cuda.is_bf16_supported(False) else []
        return [*bfloat16, "float16"]
    if device.type == "cpu":
        return ["bfloat16"] if cpu_multiplies_bfloat16() else []
    return ["float16"]


def transformers_contender(folder: str, device: torch.device, max_length: int) -> Contender:
    """The code of transformers' documentation: float32, batches of 32 in input order."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with quiet():
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
    model.to(device=device, dtype=torch.float32).eval()

    @torch.inference_mode()
    def logits(query: str, passages: Sequence[str]) -> list[float]:
        values: list[float] = []
        for start in range(0, len(passages), DEFAULT_BATCH_SIZE):
            batch = list(passages[start : start + DEFAULT_BATCH_SIZE])
            inputs = tokenizer(
                [query] * len(batch),
                batch,
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            ).to(device)
            values += model(**inputs).logits[:, 0].tolist()
        return values

    def rank(query: str, passages: Sequence[str]) -> list[int]:
        return rank_scores(logits(query, passages))

    setting = f"AutoModelForSequenceClassification, float32, batches of {DEFAULT_BATCH_SIZE}"
    return Contender(TRANSFORMERS, setting, "float32", rank, logits)


def _measure_device(model: ModelUnderTest) -> None:
    model.log("measuring the rate of matrix products")
    halves = half_formats(model.device, model.options.dtype)
    dtypes = list(dict.fromkeys([model.dtype, "float32", *halves]))
    model.record.rates += measure_matrix_rates(model.device, dtypes, model.shape)


def _search_request(model: ModelUnderTest) -> Request:
    """A request of a few seconds: a large model on a CPU gets fewer passages."""
    passages = SEARCH_PAIRS.get(model.device.type, 64)
    pair_ms = model.floor_ms(model.work([TYPICAL_TOKENS]))
    if pair_ms:
        passages = max(6, min(passages, int(SEARCH_S * 1e3 / pair_ms)))
    return model.texts.request(REALISTIC, passages)


def _has_room(folder: str, device: torch.device) -> bool:
    available = available_bytes()
    if device.type != "cpu" or available is None:
        return True
    weights = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    # Loading holds the file and the model at the same time, and activations need room.
    return available > 2 * weights + (1 << 30)


def _add_openvino(model: ModelUnderTest, tuned: Contender) -> None:
    if model.device.type != "cpu":
        model.note("OpenVINO is not compared: only on a CPU")
        return
    for package in ("openvino", "optimum"):
        if importlib.util.find_spec(package) is None:
            model.note(f"OpenVINO is not compared: {package} is not installed (optimum-intel)")
            return
    model.log("exporting to OpenVINO")
    dtype = "bfloat16" if cpu_multiplies_bfloat16() else "float32"
    try:
        exported = _export_to_openvino(model.folder, dtype, model.max_length)
    except Exception as error:
        model.note(f"OpenVINO is not compared: {summarize(error)}")
        return
    batch_size = int(tuned.setting.rsplit(" ", 1)[1])
    contender = cross_encoder_contender(exported, dtype, batch_size)
    setting = f"backend='openvino', {dtype} hint, batches of {batch_size}"
    model.contenders.append(replace(contender, name=OPENVINO, setting=setting))


def _export_to_openvino(folder: str, dtype: str, max_length: int) -> Any:
    from sentence_transformers import CrossEncoder

    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
        "PERFORMANCE_HINT": "LATENCY",
    }
    with quiet():
        return CrossEncoder(
            folder,
            device="cpu",
            max_length=max_length,
            backend="openvino",
            model_kwargs={"export": True, "ov_config": hints},
        )
