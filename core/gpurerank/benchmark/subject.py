"""One model with all its contenders loaded, warm, and compared with the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gpurerank.benchmark import contenders as who
from gpurerank.benchmark.agreement import compare
from gpurerank.benchmark.contenders import Contender
from gpurerank.benchmark.memory import available_bytes
from gpurerank.benchmark.options import BenchOptions
from gpurerank.benchmark.rates import best_rate, matrix_rates
from gpurerank.benchmark.records import ContenderRecord
from gpurerank.benchmark.report import ModelRecord
from gpurerank.benchmark.rounds import Pace, timed_ms
from gpurerank.benchmark.search import find_best
from gpurerank.benchmark.shapes import ModelShape
from gpurerank.benchmark.stand_ins import STAND_INS, BenchModel
from gpurerank.benchmark.texts import REALISTIC, Request, TextMaker
from gpurerank.errors import ModelNotFoundError
from gpurerank.models.devices import dtype_name, resolve_dtype
from gpurerank.models.loading import quiet

MAX_LENGTH = 512
# What a sample may take at the floor, with pairs of so many tokens, and its least size.
SAMPLE_S = 3.0
TYPICAL_TOKENS = 140
LEAST_SAMPLE = 6
# Pairs that are compared; that guess the pace; that find the best setting.
COMPARED = {"cpu": 32, "cuda": 200}
SMALL = 10
SEARCHED = {"cpu": 64, "cuda": 512}


@dataclass(slots=True)
class Subject:
    """What the sections measure.

    Attributes:
        record: Where they write.
        max_length: Tokens of a pair, the same for everyone.
        options: What was asked for.
        most_rounds: Of a cell.
        say: Shows what is going on.
        note: Keeps a line for the report.
    """

    model: BenchModel
    record: ModelRecord
    options: BenchOptions
    device: torch.device
    max_length: int
    texts: TextMaker
    shape: ModelShape | None
    most_rounds: int
    say: Callable[[str], None]
    note: Callable[[str], None]
    contenders: list[Contender] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)

    def work(self, lengths: Sequence[int]) -> float:
        """Operations of sequences of these lengths; tokens where the architecture is unknown."""
        return self.shape.operations(lengths) if self.shape else float(sum(lengths))

    def floor_ms(self, operations: float) -> float | None:
        """The least time the device can take, at its best rate."""
        rate = best_rate(self.record.rates)
        return operations / rate * 1e3 if self.shape and rate else None

    def named(self, name: str) -> Contender | None:
        """The contender of that name, where it takes part."""
        return next((each for each in self.contenders if each.name == name), None)

    def groups(self) -> list[list[Contender]]:
        """The contenders as they change places: "seen" stays behind what it has seen."""
        groups: list[list[Contender]] = []
        for contender in self.contenders:
            if contender.name == who.SEEN and groups:
                groups[-1].append(contender)
            else:
                groups.append([contender])
        return groups

    def drop(self, contender: Contender, error: Exception) -> None:
        """Leaves a contender out from here on; the report says why."""
        reason = (str(error).splitlines() or [""])[0][:200]
        self.note(f"{contender.name} left out: {type(error).__name__}: {reason}")
        self.contenders = [each for each in self.contenders if each is not contender]

    def close(self) -> None:
        """Gives all memory back."""
        contenders, self.contenders = self.contenders, []
        who.release(contenders)


def load_subject(
    model: BenchModel,
    options: BenchOptions,
    device: torch.device,
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> Subject:
    """Loads every contender, measures the device, finds the best setting, compares the scores."""
    config, tokenizer = _described(model)
    max_length = _max_length(config)
    subject = Subject(
        model,
        ModelRecord(model.name, model.weights, model.tokenizer),
        options,
        device,
        max_length,
        TextMaker(tokenizer, max_length),
        ModelShape.of(config),
        options.rounds or (50 if device.type == "cuda" else 20),
        say,
        note,
    )
    if subject.shape is None:
        note(f"{model.name}: no floor for the architecture {config.model_type!r}")
    try:
        _measure_device(subject)
        _load(subject)
        _compare(subject)
    except BaseException:
        subject.close()
        raise
    return subject


def _described(model: BenchModel) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    try:
        with quiet():
            config: Any = AutoConfig.from_pretrained(model.folder)
            return config, AutoTokenizer.from_pretrained(model.folder)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise ModelNotFoundError(
            f"the model {model.name!r} cannot be loaded ({reason}); without a network take"
            f" {', '.join(STAND_INS)}, embedded or a folder"
        ) from error


def _max_length(config: Any) -> int:
    limit = int(getattr(config, "max_position_embeddings", MAX_LENGTH))
    # RoBERTa's family counts positions from padding_idx + 1 on.
    begun = 2 if config.model_type in ("camembert", "roberta", "xlm-roberta") else 0
    return min(MAX_LENGTH, limit - begun)


def _measure_device(subject: Subject) -> None:
    subject.say("measuring the device")
    device, dtype = subject.device, subject.options.dtype
    used = [dtype_name(resolve_dtype(dtype, device)), "float32", *who.half_formats(device, dtype)]
    subject.record.rates = matrix_rates(device, list(dict.fromkeys(used)), subject.shape)


def _sample(subject: Subject, most: int) -> Request:
    """Pairs that the device could do in a few seconds: a large model on a CPU takes fewer."""
    one_ms = subject.floor_ms(subject.work([TYPICAL_TOKENS])) or 0.0
    fitting = int(SAMPLE_S * 1e3 / one_ms) if one_ms else most
    return subject.texts.request(REALISTIC, max(LEAST_SAMPLE, min(most, fitting)))


def _load(subject: Subject) -> None:
    folder, device = subject.model.folder, subject.device
    subject.say("loading gpurerank")
    subject.contenders += who.ours(folder, device, subject.options.dtype, subject.max_length)
    subject.say("loading sentence-transformers")
    float32 = who.sentence_transformer(folder, device, "float32", subject.max_length)
    reference = who.of_sentence_transformer(who.REFERENCE, float32, "float32", who.BATCH_SIZE)
    subject.contenders.append(reference)
    subject.say("searching sentence-transformers' best setting")
    pairs = _sample(subject, SEARCHED.get(device.type, 64)).pairs
    halves = who.half_formats(device, subject.options.dtype)
    best, tried = find_best(
        folder, device, halves, subject.max_length, float32, pairs, subject.options.limit_s
    )
    subject.contenders.append(best)
    if _fits(folder, device):
        subject.say("loading transformers")
        subject.contenders.append(who.plain(folder, device, subject.max_length))
    else:
        subject.note("transformers left out: the memory does not hold one more copy")
    _load_openvino(subject, best)
    subject.record.contenders = [
        ContenderRecord(each.name, each.setting, each.dtype, tried if each is best else [])
        for each in subject.contenders
    ]


def _load_openvino(subject: Subject, best: Contender) -> None:
    why = who.why_no_openvino(subject.device)
    if why is not None:
        subject.note(why)
        return
    subject.say("exporting to OpenVINO")
    try:
        model, dtype = who.openvino(subject.model.folder, subject.max_length)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:160]
        subject.note(f"OpenVINO is not compared: {type(error).__name__}: {reason}")
        return
    size = int(best.setting.rsplit(" ", 1)[1])
    setting = f"OpenVINO backend, {dtype} hint"
    subject.contenders.append(
        who.of_sentence_transformer(who.OPENVINO, model, dtype, size, setting)
    )


def _fits(folder: str, device: torch.device) -> bool:
    available = available_bytes()
    if device.type != "cpu" or available is None:
        return True
    weights = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    # Loading holds the file and the model for a moment, and activations need room.
    return available > 2 * weights + (1 << 30)


def _compare(subject: Subject) -> None:
    """Scores the same pairs with everyone; who fails is left out, who disagrees is marked."""
    request = _sample(subject, COMPARED.get(subject.device.type, 32))
    scores: dict[str, list[float]] = {}
    for contender in list(subject.contenders):
        subject.say(f"comparing scores: {contender.name}")
        try:
            scores[contender.name] = contender.score(request.pairs)
        except Exception as error:
            if contender.name == who.REFERENCE:
                raise
            subject.drop(contender, error)
    _time_small(subject)
    reference = scores[who.REFERENCE]
    subject.record.agreement = [
        compare(each.name, each.dtype, scores[each.name], reference) for each in subject.contenders
    ]


def _time_small(subject: Subject) -> None:
    """A first guess of each one's pace: the comparison ran cold."""
    request = _sample(subject, SMALL)
    for contender in subject.contenders:
        seconds = timed_ms(partial(contender.rank, request.query, request.passages)) / 1e3
        subject.pace.note(contender.name, subject.work(request.lengths), seconds)
