from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from typer.testing import CliRunner

from benchmarks.exact_text import ExactTextGenerator
from gpurerank.benchmark.bench_options import BenchOptions, parse_numbers
from gpurerank.benchmark.bench_report import (
    BenchReport,
    ContenderRecord,
    LatencyCell,
    MatrixRate,
    ModelRecord,
    Timing,
)
from gpurerank.benchmark.bench_run import recorded_run, run_bench
from gpurerank.benchmark.hardware_floor import EncoderShape
from gpurerank.benchmark.implementations import GPURERANK, REFERENCE, Contender
from gpurerank.benchmark.latency import measure_latency
from gpurerank.benchmark.model_under_test import ModelUnderTest
from gpurerank.benchmark.result_tables import render_report
from gpurerank.benchmark.score_agreement import compare_scores
from gpurerank.benchmark.synthetic_text import TextGenerator, realistic_word_counts
from gpurerank.benchmark.timing import WARM_UP, RoundSchedule, p95, rotate
from gpurerank.cli import app
from gpurerank.errors import InputError, ModelError
from gpurerank.models.hardware import Hardware
from gpurerank.models.loading import ModelSpec
from gpurerank.models.packing import Tokens, pack
from gpurerank.models.pair_model import PairModel
from tests.time_limits import HANG_S
from tests.tiny_models import wordpiece_tokenizer

SHAPE = EncoderShape(layers=2, hidden=32, intermediate=48)
Rank = Callable[[str, Sequence[str]], list[int]]


# Not BERT, whose pooler runs once more.
@pytest.mark.parametrize("family", ["roberta", "xlm_roberta"])
def test_operations_are_those_that_the_packed_layers_take(
    family: str, model_folder: Callable[[str], str]
) -> None:
    model = PairModel(ModelSpec(name=model_folder(family), device="cpu", dtype="float32"))
    shape = EncoderShape.from_config(model._model.config)
    assert shape == SHAPE
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    mapping = {attention: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)}
    for lengths in ([5], [64], [5, 64, 64]):
        sequences = [Tokens.from_arrays(np.full(n, 7), np.zeros(n, dtype=int)) for n in lengths]
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
            model.run(pack(sequences, 2))
        assert shape.operations(lengths) == counter.get_total_flops()


def test_an_unknown_architecture_has_no_floor() -> None:
    assert EncoderShape.from_config(transformers.DebertaV2Config()) is None


def test_p95_needs_twenty_rounds() -> None:
    assert p95([1.0] * 19) is None
    assert p95([float(i) for i in range(21)]) == 19.0
    assert Timing("a", [3.0, 1.0, 2.0]).median_ms == 2.0


def test_each_contender_is_first_once_per_cycle() -> None:
    names = ["ours", "st", "plain"]
    assert rotate(names, 0) == names
    assert rotate(names, 1) == ["st", "plain", "ours"]
    assert rotate(names, 2) == ["plain", "ours", "st"]
    assert rotate(names, 3) == rotate(names, WARM_UP) == names


def test_realistic_lengths_are_counted_cut_and_new_each_time() -> None:
    tokenizer = wordpiece_tokenizer()
    generator = TextGenerator(tokenizer, 128)
    first, second = generator.request("realistic", 30), generator.request("realistic", 30)
    assert not set(first.passages) & set(second.passages)
    counts = [len(tokenizer(first.query, passage)["input_ids"]) for passage in first.passages]
    assert first.lengths == [min(count, 128) for count in counts]
    assert max(counts) <= 130
    assert TextGenerator(tokenizer, 128).request("realistic", 30) == first


def test_fixed_lengths_miss_their_tokens_by_few_and_are_counted() -> None:
    tokenizer = wordpiece_tokenizer()
    request = TextGenerator(tokenizer, 512).request("200", 30)
    counts = [len(tokenizer(request.query, passage)["input_ids"]) for passage in request.passages]
    assert request.lengths == counts
    assert request.tokens == sum(counts)
    assert min(counts) >= 185
    assert max(counts) <= 203


def test_no_query_is_blank_however_many_tokens_its_words_have() -> None:
    generator = TextGenerator(wordpiece_tokenizer(), 512)
    assert all(generator.request("16", 1).query.strip() for _ in range(50))


def test_realistic_words_have_their_median_and_spread_at_every_count() -> None:
    for count in (11, 1_001):
        words = sorted(realistic_word_counts(count))
        assert words[count // 2] == 100
        share = sum(55 <= number <= 182 for number in words) / count
        assert share == pytest.approx(0.68, abs=0.06)


def test_a_measurement_over_its_limit_is_not_run() -> None:
    schedule = RoundSchedule(limit_s=0.3, max_rounds=20)
    for _ in schedule.rounds(work=1.0):
        time.sleep(0.15)
    assert schedule.skipped_s == pytest.approx(0.45, abs=0.1)
    assert list(schedule.rounds(work=10.0)) == []
    assert schedule.skipped_s >= 4.5


def test_rounds_end_with_the_time_but_not_before_the_third() -> None:
    started = time.monotonic()
    numbers = []
    for number in RoundSchedule(limit_s=0.5, max_rounds=20).rounds(work=1.0):
        numbers.append(number)
        time.sleep(0.1)
    assert numbers[:4] == [WARM_UP, 0, 1, 2]
    assert len(numbers) <= 6
    assert time.monotonic() - started < 5
    cheap = RoundSchedule(limit_s=30.0, max_rounds=5)
    assert list(cheap.rounds(work=1.0)) == [WARM_UP] * 3 + [0, 1, 2, 3, 4]
    assert cheap.skipped_s is None


def test_other_scores_disagree_and_rounding_does_not() -> None:
    reference = np.arange(100) / 100
    assert compare_scores("a", "float32", reference + 1e-4, reference).agrees
    rounded = reference + 0.01
    assert compare_scores("a", "bfloat16", rounded, reference).agrees
    assert not compare_scores("a", "float32", rounded, reference).agrees
    reversed_ = compare_scores("a", "bfloat16", reference[::-1], reference)
    assert (reversed_.agrees, reversed_.same_top) == (False, False)
    assert reversed_.rank_correlation == pytest.approx(-1.0)
    assert compare_scores("a", "float32", np.ones(5), np.ones(5)).agrees
    not_finite = np.concatenate([[np.nan], reference[1:]])
    assert not compare_scores("a", "float32", not_finite, reference).agrees


@pytest.fixture
def model(tiny: str) -> Iterator[ModelUnderTest]:
    """The tiny model with two requests' worth of options; tests replace its contenders."""
    options = BenchOptions(candidates=(2,), lengths=("32",), device="cpu", rounds=5)
    notes: list[str] = []
    record = ModelRecord("m")
    with closing(ModelUnderTest(tiny, record, options, lambda _: None, notes.append)) as model:
        yield model


def contender_of(name: str, rank: Rank, **options: bool) -> Contender:
    return Contender(
        name, "", "float32", rank, lambda _, passages: [0.0] * len(passages), **options
    )


def notes_of(model: ModelUnderTest) -> list[str]:
    notes: list[str] = []
    model.note = notes.append
    return notes


def test_all_contenders_of_a_round_get_the_same_new_texts(model: ModelUnderTest) -> None:
    calls: list[tuple[str, str]] = []

    def rank_as(name: str) -> Rank:
        return lambda query, passages: calls.append((name, "".join(passages))) or [0, 1]

    names = [GPURERANK, "primed", "other"]
    model.close()
    model.contenders = [contender_of(n, rank_as(n), is_primed=n == "primed") for n in names]
    model.shape, model.texts = SHAPE, ExactTextGenerator(model.texts.tokenizer, 512)
    model.record.rates = [MatrixRate("float32", 1, 1, 1, 1.0)]
    measure_latency(model)
    (cell,) = model.record.latency
    assert {t.contender: len(t.times_ms) for t in cell.timings} == dict.fromkeys(names, 5)
    # A primed contender is called twice, and the first call is not timed.
    counted = calls[-20:]
    rounds = [counted[i : i + 4] for i in range(0, 20, 4)]
    assert all(len({text for _, text in calls}) == 1 for calls in rounds)
    assert len({text for _, text in counted}) == 5
    assert [name for name, _ in rounds[1]] == ["primed", "primed", "other", GPURERANK]
    assert cell.operations == SHAPE.operations([32, 32])
    assert cell.floor_ms == pytest.approx(cell.operations / 1e9 * 1e3)


def test_an_interrupted_measurement_keeps_its_complete_rounds(model: ModelUnderTest) -> None:
    calls = 0

    def rank(query: str, passages: Sequence[str]) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 3 + 5:
            raise KeyboardInterrupt
        return [0, 1]

    model.close()
    model.contenders = [contender_of(GPURERANK, rank)]
    with pytest.raises(KeyboardInterrupt):
        measure_latency(model)
    assert len(model.record.latency[0].timings[0].times_ms) == 4


def test_a_contender_that_fails_is_left_out_and_named(model: ModelUnderTest) -> None:
    def fail(query: str, passages: Sequence[str]) -> list[int]:
        raise RuntimeError("no kernel")

    notes = notes_of(model)
    model.close()
    model.contenders = [contender_of(GPURERANK, lambda q, p: [0]), contender_of("bad", fail)]
    measure_latency(model)
    assert [t.contender for t in model.record.latency[0].timings] == [GPURERANK]
    assert notes == ["bad left out: RuntimeError: no kernel"]
    model.contenders = [contender_of("bad", fail)]
    with pytest.raises(ModelError, match="no way to score pairs with 'm'"):
        measure_latency(model)


def test_lengths_over_the_models_limit_are_left_out_with_a_note(model: ModelUnderTest) -> None:
    notes = notes_of(model)
    model.max_length = 31
    measure_latency(model)
    assert model.record.latency == []
    assert notes == ["32 tokens per pair left out: the model takes 31"]


def test_sentence_transformers_agrees_although_its_scores_have_another_scale(
    model: ModelUnderTest,
) -> None:
    model.load_reference()
    reference = model.contenders[1]
    raw = reference.logits("a query", ["first", "second text", "a third"])
    np.testing.assert_allclose(
        raw, model.contenders[0].logits("a query", ["first", "second text", "a third"]), atol=1e-4
    )
    model.compare_scores()
    assert [(a.contender, a.agrees) for a in model.record.agreement] == [
        (GPURERANK, True),
        (REFERENCE, True),
    ]


def report_of(record: ModelRecord) -> BenchReport:
    hardware = Hardware("cpu", ["avx2"], 2, 1, 1 << 34)
    return BenchReport("2026-01-01", {"rounds": "None"}, hardware, {}, "cpu", [record])


def test_the_table_shows_throughput_floor_and_what_was_skipped() -> None:
    record = ModelRecord("m", contenders=[ContenderRecord(GPURERANK, "", "float32")])
    record.agreement = [compare_scores(GPURERANK, "float32", np.ones(2), np.zeros(2))]
    record.rates = [MatrixRate("float32", 1, 1, 1, 2_000.0)]
    record.latency = [
        LatencyCell("128", 10, 1_280.0, 1e9, 0.5, [Timing(GPURERANK, [2.0] * 20)]),
        LatencyCell("128", 1_000, 128_000.0, skipped_s=94.2),
    ]
    console = Console(width=100, record=True, file=open(os.devnull, "w"))
    with console.file:
        for part in render_report(report_of(record)):
            console.print(part)
    text = " ".join(console.export_text().replace("│", " ").split())
    assert "Scores DISAGREE with sentence-transformers: maximum difference 1.0e+00" in text
    assert "gpurerank 10 1,280 2.00 2.00 5,000 0.500 25%" in text
    assert "needs --limit-s 95 1,000 128,000" in text
    assert "at the 2.00 TFLOP/s" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("10,x", "--candidates", 1, 99), "--candidates has 'x'; it takes numbers from 1 to 99"),
        (("0", "--candidates", 1, 9), "from 1"),
        ((" , ", "--candidates", 1, 9), "--candidates is empty"),
        (("word,9999", "--lengths", 16, 512, "word"), "'9999'; it takes numbers .* and 'word'"),
    ],
)
def test_wrong_lists_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_numbers(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "'--rounds': Input should be greater than or equal to 1"),
        (["--limit-s", "0"], "'--limit-s': Input should be greater than or equal to 0.1"),
        (["--output", __file__], "is a file"),
        (["--sections", "http"], "No such option: --sections"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_an_unknown_number_format_is_named() -> None:
    result = CliRunner().invoke(app, ["bench", "--dtype", "int3", "--device", "cpu"])
    assert isinstance(result.exception, InputError)
    assert "int3" in str(result.exception)


def test_a_quick_run_keeps_explicit_options() -> None:
    quick = BenchOptions(candidates=(7,)).reduced()
    assert quick.candidates == (7,)
    assert quick.limit_s == 18.0
    assert BenchOptions().reduced().candidates == (10, 20)


def test_a_run_without_matplotlib_writes_json_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    report = report_of(ModelRecord("m"))
    with open(os.devnull, "w") as file:
        console = Console(file=file)
        with recorded_run(report, tmp_path, console, console, render_report):
            pass
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    assert report.notes == ["no plots: matplotlib is missing; pip install 'gpurerank[bench]'"]


def test_a_model_that_cannot_be_loaded_does_not_lose_the_results_of_others(
    tiny: str, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing")
    options = BenchOptions(models=(tiny, missing), candidates=(2,), rounds=1, device="cpu")
    with open(os.devnull, "w") as file:
        console = Console(file=file)
        report = run_bench(options, console, console)
        with pytest.raises(ModelError, match="missing"):
            run_bench(replace(options, models=(missing,)), console, console)
    assert [len(model.latency) for model in report.models] == [1]
    assert report.notes[-1].startswith(f"{missing} stopped: ModelNotFoundError")


def bench(arguments: list[str], tmp_path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gpurerank.cli", "bench", *arguments, "-o", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(tmp_path / "mpl")},
    )


def read_json(folder: Path) -> Any:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


def test_the_command_measures_shows_and_writes(tiny: str, tmp_path: Path) -> None:
    arguments = ["--model", tiny, "--device", "cpu", "--candidates", "4,2", "--lengths", "32"]
    with bench([*arguments, "--rounds", "2", "--limit-s", "30"], tmp_path) as process:
        output, errors = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, errors
    lines = [line for line in output.splitlines() if not line.startswith("written")]
    assert max(map(len, lines)) <= 100
    assert "32 tokens per pair" in output
    report = read_json(tmp_path)
    assert tiny not in json.dumps(report)
    (model,) = report["models"]
    agreement = {result["contender"]: result["agrees"] for result in model["agreement"]}
    assert agreement == {GPURERANK: True, REFERENCE: True}
    cells = model["latency"]
    assert [(cell["lengths"], cell["candidates"]) for cell in cells] == [("32", 2), ("32", 4)]
    assert 0 < cells[0]["tokens"] < cells[1]["tokens"] <= 4 * 34
    for cell in cells:
        assert [len(timing["times_ms"]) for timing in cell["timings"]] == [2, 2]
        assert 0 < cell["floor_ms"] < min(cell["timings"][0]["times_ms"])
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.svg"))) == 1


def test_ctrl_c_shows_and_writes_what_was_measured(tiny: str, tmp_path: Path) -> None:
    arguments = ["--model", tiny, "--device", "cpu", "--candidates", "2,3,1000", "--rounds", "3"]
    with bench([*arguments, "--limit-s", "300"], tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "1,000 candidates" in line:
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == 130
    assert "Interrupted: the measurements that follow are missing." in output
    report = read_json(tmp_path)
    assert report["interrupted"] is True
    cells = report["models"][0]["latency"]
    assert [len(cell["timings"]) for cell in cells[:2]] == [2, 2]
