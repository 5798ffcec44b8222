"""A model with its contenders: loaded, warm, and with their scores compared."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer

from gpurerank.benchmark.bench_options import BenchOptions
from gpurerank.benchmark.bench_report import ContenderRecord, ModelRecord
from gpurerank.benchmark.hardware_floor import EncoderShape, measure_matrix_rates
from gpurerank.benchmark.implementations import (
    REFERENCE,
    Contender,
    cross_encoder_contender,
    gpurerank_contender,
    load_cross_encoder,
)
from gpurerank.benchmark.score_agreement import Floats, compare_scores
from gpurerank.benchmark.synthetic_text import REALISTIC, TextGenerator
from gpurerank.errors import ModelError
from gpurerank.models import embedded
from gpurerank.models.devices import dtype_name, resolve_device, resolve_dtype
from gpurerank.models.loading import quiet

MAX_LENGTH = 512
COMPARED_PAIRS = {"cpu": 32, "cuda": 200}


class ModelUnderTest:
    """A model, its contenders, and what measuring them needs.

    Args:
        folder: The model's folder or hub id.
        record: Receives the measurements.
        options: Options of the run.
        log: Shows what is being measured.
        note: Adds a line to the report.

    Raises:
        ModelError: The model cannot be loaded.
    """

    def __init__(
        self,
        folder: str,
        record: ModelRecord,
        options: BenchOptions,
        log: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self.folder, self.record, self.options, self.note = folder, record, options, note
        self.log: Callable[[str], None] = lambda text: log(f"{record.name}: {text}")
        self.device = resolve_device(options.device)
        self.dtype = dtype_name(resolve_dtype(options.dtype, self.device))
        self.max_rounds = options.rounds or (50 if self.device.type == "cuda" else 20)
        self.log("loading gpurerank")
        # First, because its errors say what to do about a model that cannot be loaded.
        self.contenders = [gpurerank_contender(folder, self.device, self.dtype, MAX_LENGTH)]
        with quiet():
            config: Any = AutoConfig.from_pretrained(folder)
            tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        # The RoBERTa family counts positions from padding_idx + 1 on.
        offset = 2 if config.model_type in ("camembert", "roberta", "xlm-roberta") else 0
        limit = getattr(config, "max_position_embeddings", MAX_LENGTH) - offset
        self.max_length = min(MAX_LENGTH, limit)  # Tokens per pair, of all contenders.
        self.texts = TextGenerator(tokenizer, self.max_length)
        self.shape = EncoderShape.from_config(config)
        if self.shape is None:
            note(f"{record.name}: no floor, {config.model_type!r} models have no formula for it")

    def work(self, lengths: Sequence[int]) -> float:
        """Operations to score sequences of these lengths; tokens without a formula."""
        return self.shape.operations(lengths) if self.shape else float(sum(lengths))

    def floor_ms(self, operations: float) -> float | None:
        """The least time the device can take, at its best rate in any number format."""
        rate = max((rate.giga_operations_s for rate in self.record.rates), default=0.0)
        return operations / rate / 1e6 if self.shape and rate else None

    def load_reference(self) -> None:
        """Measures the device's matrix rates and loads sentence-transformers."""
        self.log("measuring the rate of matrix products")
        dtypes = list(dict.fromkeys([self.dtype, "float32"]))
        self.record.rates += measure_matrix_rates(self.device, dtypes, self.shape)
        self.log("loading sentence-transformers")
        try:
            model = load_cross_encoder(self.folder, self.device, "float32", self.max_length)
        except Exception as error:
            self.note(f"no comparison with sentence-transformers: {summarize(error)}")
        else:
            self.contenders.append(cross_encoder_contender(model, "float32"))
        for c in self.contenders:
            self.record.contenders.append(ContenderRecord(c.name, c.setting, c.dtype))

    def compare_scores(self) -> None:
        """Scores the same pairs with all contenders; those that fail are left out."""
        request = self.texts.request(REALISTIC, COMPARED_PAIRS.get(self.device.type, 32))
        scores: dict[str, Floats] = {}
        for contender in list(self.contenders):
            self.log(f"comparing scores: {contender.name}")
            try:
                logits = contender.logits(request.query, request.passages)
                scores[contender.name] = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
            except Exception as error:
                self.drop(contender, error)
        if REFERENCE in scores:
            self.record.agreement += [
                compare_scores(c.name, c.dtype, scores[c.name], scores[REFERENCE])
                for c in self.contenders
            ]

    def drop(self, contender: Contender, error: Exception) -> None:
        """Leaves a contender out from here on and notes why; an error if it was the last one."""
        self.note(f"{contender.name} left out: {summarize(error)}")
        self.contenders.remove(contender)
        if not self.contenders:
            raise ModelError(f"no way to score pairs with {self.record.name!r} works") from error

    def close(self) -> None:
        """Frees the memory of all contenders."""
        while self.contenders:
            self.contenders.pop().close()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def locate_model(name: str, scratch: Path) -> tuple[str, str]:
    """The name that a report may show, and the folder or hub id to load.

    The embedded cross-encoder is written to ``scratch``, so that sentence-transformers loads it.
    """
    if name == embedded.NAME:
        with quiet():
            embedded.load_cross_encoder("cpu", torch.float32).save_pretrained(str(scratch / name))
        return name, str(scratch / name)
    # Reports are published; the path of a folder stays private.
    return (Path(name).name if Path(name).is_dir() else name), name


def summarize(error: Exception) -> str:
    """The type and the first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
