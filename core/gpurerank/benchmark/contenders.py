"""Who is compared: each takes strings and returns Python floats, tokenization included."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gpurerank.benchmark.records import ContenderRecord
from gpurerank.models.devices import DTYPES, cpu_multiplies_bfloat16, dtype_name, resolve_dtype
from gpurerank.models.loading import quiet
from gpurerank.reranker import Reranker

Pairs = Sequence[tuple[str, str]]

OURS = "gpurerank"
SEEN = "gpurerank, seen"
OURS_FLOAT32 = "gpurerank float32"
REFERENCE = "ST default"
BEST = "ST best"
PLAIN = "transformers"
OPENVINO = "OpenVINO"
BATCH_SIZE = 32


@dataclass(slots=True)
class Contender:
    """One way to score pairs.

    Attributes:
        name: As the tables show it.
        setting: How it was set up.
        dtype: The format it multiplies in.
        score: Scores in [0, 1], input order.
        rank: Passage numbers, best first; ties in input order.
        close: Gives the memory back.
    """

    name: str
    setting: str
    dtype: str
    score: Callable[[Pairs], list[float]]
    rank: Callable[[str, Sequence[str]], list[int]]
    close: Callable[[], None]

    def record(self) -> ContenderRecord:
        """What the report says of it."""
        return ContenderRecord(self.name, self.setting, self.dtype)


def half_formats(device: torch.device, dtype: str) -> list[str]:
    """The 16-bit formats that the hardware multiplies in, or the one that was asked for."""
    if dtype != "auto":
        return [dtype] if dtype != "float32" else []
    if device.type == "cuda":
        bfloat16 = ["bfloat16"] if torch.cuda.is_bf16_supported(False) else []
        return [*bfloat16, "float16"]
    if device.type == "cpu":
        return ["bfloat16"] if cpu_multiplies_bfloat16() else []
    return ["float16"]


def ours(folder: str, device: torch.device, dtype: str, max_length: int) -> list[Contender]:
    """Our own, with passages it has not seen and with those it has; float32 too where not auto.

    The first two are one object: the second runs straight after the first, on the same passages.
    """
    resolved = dtype_name(resolve_dtype(dtype, device))
    found = [_ours(OURS, folder, device, resolved, max_length)]
    new = found[0]
    found.append(
        Contender(
            SEEN, f"{new.setting}, passages seen before", resolved, new.score, new.rank, _nothing
        )
    )
    if resolved != "float32":
        found.append(_ours(OURS_FLOAT32, folder, device, "float32", max_length))
    return found


def sentence_transformer(
    folder: str, device: torch.device, dtype: str, max_length: int, **options: Any
) -> Any:
    """A loaded ``sentence_transformers.CrossEncoder`` in a format, with torch's fused attention."""
    from sentence_transformers import CrossEncoder

    options = options or {
        "model_kwargs": {"torch_dtype": DTYPES[dtype], "attn_implementation": "sdpa"}
    }
    with quiet():
        model = CrossEncoder(folder, device=str(device), max_length=max_length, **options)
    if options.get("backend") is None:
        # Whatever a version does with the option: what is measured is what is named.
        model.to(dtype=DTYPES[dtype])
    return model


def of_sentence_transformer(
    name: str, model: Any, dtype: str, batch_size: int, setting: str = ""
) -> Contender:
    """A contender that calls ``predict`` with a batch size."""

    def score(pairs: Pairs) -> list[float]:
        found: list[float] = model.predict(
            list(pairs), batch_size=batch_size, show_progress_bar=False
        ).tolist()
        return found

    said = f"sentence-transformers, {setting or dtype}, batches of {batch_size}"
    return Contender(name, said, dtype, score, _ranking(score), _nothing)


def plain(folder: str, device: torch.device, max_length: int) -> Contender:
    """What transformers' documentation shows: float32, batches of 32 in input order."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with quiet():
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
    model.to(device=device, dtype=torch.float32).eval()

    @torch.inference_mode()
    def score(pairs: Pairs) -> list[float]:
        found: list[float] = []
        for start in range(0, len(pairs), BATCH_SIZE):
            batch = pairs[start : start + BATCH_SIZE]
            texts = tokenizer(
                [query for query, _ in batch],
                [passage for _, passage in batch],
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            ).to(device)
            found += torch.sigmoid(model(**texts).logits[:, 0]).tolist()
        return found

    said = f"AutoModelForSequenceClassification, float32, batches of {BATCH_SIZE}"
    return Contender(PLAIN, said, "float32", score, _ranking(score), _nothing)


def why_no_openvino(device: torch.device) -> str | None:
    """Why OpenVINO is not compared; None where it can be."""
    if device.type != "cpu":
        return "OpenVINO is compared on the CPU only"
    for package in ("openvino", "optimum"):
        if importlib.util.find_spec(package) is None:
            return f"OpenVINO is not compared: {package} is not installed (optimum-intel)"
    return None


def openvino(folder: str, max_length: int) -> tuple[Any, str]:
    """The model through sentence-transformers' OpenVINO backend, and the format it hints at."""
    dtype = "bfloat16" if cpu_multiplies_bfloat16() else "float32"
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = sentence_transformer(
        folder,
        torch.device("cpu"),
        dtype,
        max_length,
        backend="openvino",
        model_kwargs={"export": True, "ov_config": hints},
    )
    return model, dtype


def release(contenders: Sequence[Contender]) -> None:
    """Closes contenders; the caller drops its references first."""
    for contender in contenders:
        contender.close()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _ours(name: str, folder: str, device: torch.device, dtype: str, max_length: int) -> Contender:
    reranker = Reranker(folder, device=str(device), dtype=dtype, max_length=max_length)

    def rank(query: str, passages: Sequence[str]) -> list[int]:
        return [passage.index for passage in reranker.rank(query, passages)]

    setting = f"Reranker(dtype={dtype!r})"
    return Contender(name, setting, dtype, reranker.score_pairs, rank, reranker.close)


def _ranking(score: Callable[[Pairs], list[float]]) -> Callable[[str, Sequence[str]], list[int]]:
    def rank(query: str, passages: Sequence[str]) -> list[int]:
        scores = score([(query, passage) for passage in passages])
        return sorted(range(len(scores)), key=lambda i: -scores[i])

    return rank


def _nothing() -> None:
    """Frees nothing: the memory goes with the references."""
