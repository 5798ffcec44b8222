from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from gpurerank.benchmark import options as asked
from gpurerank.benchmark.agreement import compare
from gpurerank.benchmark.concurrency import call_together
from gpurerank.benchmark.contenders import OURS, SEEN, Contender
from gpurerank.benchmark.http_lines import http_lines
from gpurerank.benchmark.latency import measure_latency, planned
from gpurerank.benchmark.latency_table import latency_table
from gpurerank.benchmark.load import LoadJob, run_load
from gpurerank.benchmark.options import BenchOptions
from gpurerank.benchmark.overhead import measure_overhead
from gpurerank.benchmark.records import (
    ContenderRecord,
    HttpRecord,
    LatencyCell,
    MatrixRate,
    OverloadRecord,
    RayRecord,
    Setting,
    Timing,
)
from gpurerank.benchmark.report import ModelRecord, Report
from gpurerank.benchmark.rounds import Budget, Pace, p95, rotated
from gpurerank.benchmark.server_process import serving
from gpurerank.benchmark.shapes import ModelShape
from gpurerank.benchmark.soak import growth_percent
from gpurerank.benchmark.stand_ins import BenchModel, unigram_tokenizer
from gpurerank.benchmark.subject import Subject
from gpurerank.benchmark.tables import render
from gpurerank.benchmark.texts import Request, TextMaker, realistic_words
from gpurerank.errors import DataError, InputError, ModelError
from gpurerank.models.hardware import Hardware
from gpurerank.models.loading import ModelSpec
from gpurerank.models.packing import Tokens, pack
from gpurerank.models.pair_model import PairModel
from tests.serving import options_of, running
from tests.time_limits import HANG_S
from tests.tiny_models import bytelevel_tokenizer, wordpiece_tokenizer

SHAPE = ModelShape(layers=2, hidden=32, intermediate=48)


# Not BERT, whose pooler runs once more.
@pytest.mark.parametrize("family", ["roberta", "xlm_roberta"])
def test_operations_are_those_that_our_layers_take(
    family: str, model_folder: Callable[[str], str]
) -> None:
    model = PairModel(ModelSpec(name=model_folder(family), device="cpu", dtype="float32"))
    shape = ModelShape.of(model._model.config)
    assert shape == SHAPE
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    known = {attention: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)}
    for lengths in ([5], [64], [5, 64, 64]):
        sequences = [Tokens.from_arrays(np.full(n, 7), np.zeros(n, dtype=int)) for n in lengths]
        with FlopCounterMode(display=False, custom_mapping=known) as counter:
            model.run(pack(sequences, 2))
        assert shape.operations(lengths) == counter.get_total_flops()


def test_an_unknown_architecture_has_no_floor() -> None:
    assert ModelShape.of(transformers.DebertaV2Config()) is None


def test_p95_wants_twenty_rounds() -> None:
    assert p95([1.0] * 19) is None
    assert p95([float(i) for i in range(21)]) == 19.0
    timing = Timing("a", [3.0, 1.0, 2.0])
    assert (timing.median_ms, timing.p95_ms) == (2.0, None)


def test_each_group_is_first_once_and_keeps_its_own_order() -> None:
    groups = [["new", "seen"], ["st"], ["plain"]]
    assert rotated(groups, 0) == ["new", "seen", "st", "plain"]
    assert rotated(groups, 1) == ["st", "plain", "new", "seen"]
    assert rotated(groups, 2) == ["plain", "new", "seen", "st"]
    assert rotated(groups, 3) == rotated(groups, 0)


@pytest.mark.parametrize("tokenizer", [wordpiece_tokenizer, bytelevel_tokenizer, unigram_tokenizer])
@pytest.mark.parametrize("wanted", [64, 257])
def test_made_pairs_have_exactly_the_tokens_asked_for(
    tokenizer: Callable[[], Any], wanted: int
) -> None:
    made = tokenizer()
    request = TextMaker(made, 512).request(str(wanted), 5)
    assert [len(made(query, passage)["input_ids"]) for query, passage in request.pairs] == [
        wanted
    ] * 5
    assert request.tokens == 5 * wanted
    assert len(set(request.passages)) == 5


def test_realistic_lengths_are_counted_cut_and_new_each_time() -> None:
    tokenizer = wordpiece_tokenizer()
    maker = TextMaker(tokenizer, 128)
    first, second = maker.request("realistic", 30), maker.request("realistic", 30)
    assert not set(first.passages) & set(second.passages)
    counts = [len(tokenizer(query, passage)["input_ids"]) for query, passage in first.pairs]
    assert first.lengths == [min(count, 128) for count in counts]
    assert max(counts) <= 130
    assert TextMaker(tokenizer, 128).request("realistic", 30) == first


def test_realistic_words_have_their_median_and_spread_at_every_count() -> None:
    for count in (11, 1_001):
        words = sorted(realistic_words(count))
        assert words[count // 2] == 100
        share = sum(55 <= each <= 182 for each in words) / count
        assert share == pytest.approx(0.68, abs=0.06)


def test_a_cell_over_its_budget_is_not_run() -> None:
    budget = Budget(limit_s=10.0, most_rounds=20)
    assert budget.allows(budget.needed_s(3.0))
    assert not budget.allows(budget.needed_s(3.5))
    assert budget.rounds(0.1) == 20
    assert budget.rounds(2.0) in (4, 5)
    assert budget.rounds(9.0) == 3


def test_pace_scales_the_nearest_work_that_is_known() -> None:
    pace = Pace()
    assert pace.estimate_s("a", 5.0) == 0.0
    pace.note("a", 10.0, 1.0)
    pace.note("a", 1_000.0, 50.0)
    assert pace.estimate_s("a", 20.0) == 2.0
    assert pace.estimate_s("a", 2_000.0) == 100.0


def test_realistic_cells_come_first_and_dear_ones_last() -> None:
    assert planned(("512", "realistic", "128"), (10, 100)) == [
        ("realistic", 10),
        ("realistic", 100),
        ("128", 10),
        ("512", 10),
        ("128", 100),
        ("512", 100),
    ]


def test_other_scores_disagree_and_rounding_does_not() -> None:
    reference = [i / 100 for i in range(100)]
    close = [score + 1e-4 for score in reference]
    assert compare("a", "float32", close, reference).agrees
    half = [score + 0.01 for score in reference]
    assert compare("a", "bfloat16", half, reference).agrees
    assert not compare("a", "float32", half, reference).agrees
    other = compare("a", "bfloat16", reference[::-1], reference)
    assert (other.agrees, other.same_top) == (False, False)
    assert other.rank_correlation == pytest.approx(-1.0)
    assert not compare("a", "float32", [float("nan"), *reference[1:]], reference).agrees


def test_the_table_marks_who_disagrees_and_what_was_skipped() -> None:
    record = ModelRecord("m", "random", "stand-in")
    record.contenders = [ContenderRecord(name, "", "float32") for name in (OURS, "wrong")]
    record.agreement = [compare("wrong", "float32", [0.1, 0.9], [0.9, 0.1])]
    timings = [Timing(OURS, [2.0] * 20), Timing("wrong", [1.0] * 20)]
    record.latency = [
        LatencyCell("128", 10, 1_280.0, 1e9, 0.5, timings),
        LatencyCell("128", 1_000, 128_000.0, skipped_s=95.0),
    ]
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(latency_table(record, "128"))
    told = console.export_text()
    assert "2.00 25%" in told
    assert "(1.00)" in told
    assert "disagrees" in told
    assert "skipped, about 95.0 s" in " ".join(told.split())


def subject_of(contenders: list[Contender], notes: list[str], **options: Any) -> Subject:
    return Subject(
        BenchModel("m", "m"),
        ModelRecord("m", "real", "its own"),
        BenchOptions(**{"candidates": (2,), "lengths": ("32",), **options}),
        torch.device("cpu"),
        512,
        TextMaker(wordpiece_tokenizer(), 512),
        SHAPE,
        5,
        lambda _: None,
        notes.append,
        contenders,
    )


def contender_of(name: str, rank: Callable[[str, Any], list[int]]) -> Contender:
    return Contender(name, "", "float32", lambda pairs: [0.0] * len(pairs), rank, lambda: None)


def test_all_contenders_of_a_round_get_the_same_new_texts() -> None:
    calls: list[tuple[str, str]] = []

    def ranks(name: str) -> Callable[[str, Any], list[int]]:
        return lambda query, passages: calls.append((name, "".join(passages))) or [0, 1]

    names = [OURS, SEEN, "other"]
    subject = subject_of([contender_of(name, ranks(name)) for name in names], [])
    subject.record.rates = [MatrixRate("float32", 1, 1, 1, 1.0)]
    measure_latency(subject)
    (cell,) = subject.record.latency
    assert {t.contender: len(t.times_ms) for t in cell.timings} == dict.fromkeys(names, 5)
    counted = calls[-15:]
    rounds = [counted[i : i + 3] for i in range(0, 15, 3)]
    assert all(len({text for _, text in each}) == 1 for each in rounds)
    assert len({text for _, text in counted}) == 5
    assert [name for name, _ in rounds[1]] == ["other", OURS, SEEN]
    assert cell.operations == SHAPE.operations([32, 32])
    assert cell.floor_ms == pytest.approx(cell.operations / 1e9 * 1e3)


def test_an_interrupted_cell_keeps_its_whole_rounds() -> None:
    calls = 0

    def rank(query: str, passages: Any) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 3 + 5:
            raise KeyboardInterrupt
        return [0, 1]

    subject = subject_of([contender_of(OURS, rank)], [])
    with pytest.raises(KeyboardInterrupt):
        measure_latency(subject)
    assert len(subject.record.latency[0].timings[0].times_ms) == 4


def test_a_contender_that_fails_is_left_out_and_named() -> None:
    def fail(query: str, passages: Any) -> list[int]:
        raise RuntimeError("no kernel")

    notes: list[str] = []
    subject = subject_of([contender_of(OURS, lambda q, p: [0]), contender_of("bad", fail)], notes)
    measure_latency(subject)
    assert [t.contender for t in subject.record.latency[0].timings] == [OURS]
    assert notes == ["bad left out: RuntimeError: no kernel"]


def test_lengths_over_the_models_limit_are_left_out_with_a_line() -> None:
    notes: list[str] = []
    subject = subject_of([contender_of(OURS, lambda q, p: [0])], notes, lengths=("600",))
    measure_latency(subject)
    assert subject.record.latency == []
    assert notes == ["600 tokens a pair left out: the model takes 512"]


def test_callers_run_together_and_a_failure_is_raised() -> None:
    requests = [Request(str(i), ["a"], [3]) for i in range(8)]
    asked_for: list[str] = []
    wall_s, taken_ms = call_together(lambda query, _: asked_for.append(query), requests)
    assert sorted(asked_for) == [str(i) for i in range(8)]
    assert len(taken_ms) == 8
    assert wall_s > 0

    def fail(query: str, passages: Any) -> None:
        raise ValueError(query)

    with pytest.raises(ValueError, match="0"):
        call_together(fail, requests[:1])


def test_growth_leaves_the_warm_up_out() -> None:
    assert growth_percent([1, 2] + [100] * 8) == 0.0
    assert growth_percent([100] * 9 + [110]) == pytest.approx(10.0)
    assert growth_percent([0] * 10) is None
    assert growth_percent([1] * 9) is None


def test_load_is_sent_and_its_outcomes_told(tiny: str, tmp_path: Path) -> None:
    bodies = tmp_path / "bodies"
    good = {"query": "a", "documents": ["b", "c"]}
    bodies.write_text("\n".join(json.dumps(each) for each in [good] * 5 + [{"query": "a"}]))
    with running(options_of(tiny, embedders=())) as server:
        host, port = server.url.removeprefix("http://").split(":")
        for job in (
            LoadJob(host, int(port), str(bodies), connections=2),
            LoadJob(host, int(port), str(bodies), rate=200.0),
        ):
            outcomes = run_load(job)
            assert sorted(outcome.status for outcome in outcomes) == [200] * 5 + [422]
            assert all(0 <= outcome.sent_s < outcome.answered_s for outcome in outcomes)
            assert not any(outcome.has_retry_after for outcome in outcomes)
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        run_load(LoadJob(host, int(port), str(bodies), connections=1))


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(ModelError, match="/no/such/folder"), serving(["-r", "/no/such/folder"]):
        pass


def overload(**changed: Any) -> OverloadRecord:
    found: dict[str, Any] = {
        "seconds": 15.0,
        "queued_s": 2.0,
        "offered_per_s": 20.0,
        "peak_per_s": 10.0,
        "goodput_per_s": 9.5,
        "sent": 300,
        "accepted": 160,
        "refused": 140,
        "without_retry_after": 0,
        "other_statuses": 0,
        "accepted_p95_ms": 2_100.0,
        "refused_p95_ms": 3.0,
        "growth_percent": 1.25,
        "recovered_s": 0.5,
    }
    return OverloadRecord(**{**found, **changed})


def test_what_was_measured_over_http_is_told() -> None:
    record = HttpRecord(64, 20, 1_280, [2.0, 1.0, 4.0], [4.0, 2.5, 2.0], [9.0] * 30, overload())
    told, more = (str(line) for line in http_lines(record))
    assert "512 pairs/s, 80% of the 640" in told
    assert "goodput 95% of it; 160 answered (p95 2,100 ms); 140 refused with 429" in more
    assert "Retry-After" not in more
    bad = overload(without_retry_after=3, recovered_s=None)
    _, more = map(str, http_lines(HttpRecord(64, 20, 10, [1.0], [1.0], [1.0], bad)))
    assert "3 of 429 without Retry-After" in more
    assert "not recovered" in more
    (skipped,) = http_lines(HttpRecord(64, 20, skipped_s=90.0))
    assert "skipped, about 90.0 s" in str(skipped)


def test_what_was_measured_with_ray_is_told() -> None:
    def told(record: RayRecord) -> str:
        console = Console(width=200, file=io.StringIO(), record=True)
        measured = report()
        measured.models[0].ray = record
        for part in render(measured):
            console.print(part)
        (line,) = (x for x in console.export_text().splitlines() if x.startswith("Ray, "))
        return line

    line = told(RayRecord(20_000, 2, [100.0, 90.0, 95.0], [105.0, 99.75, 90.0], 8.0, 2e-7))
    assert "20,000 pairs in one call to 2 replicas: 99.8 s, +5.0 % beside the 95.0 s" in line
    assert "started in 8.00 s; scores differ by 2.0e-07 at most" in line
    assert "skipped, about 500 s" in told(RayRecord(20_000, 2, skipped_s=500.0))


def report() -> Report:
    record = ModelRecord("m", "random", "stand-in")
    record.contenders = [ContenderRecord(OURS, "s", "float32", [Setting("float32", 8, 9, 1.5)])]
    record.latency = [LatencyCell("128", 10, 1_280.0, None, None, [Timing(OURS, [1.0, 2.5])])]
    hardware = Hardware("cpu", ["avx2"], 2, 1, 1 << 34)
    return Report("2026-01-01", {"rounds": "None"}, hardware, {"python": "3"}, "cpu", 1.0, [record])


def test_a_report_reads_back_as_it_was_written() -> None:
    written = report().to_json()
    assert Report.from_json(written) == report()
    assert json.loads(written)["models"][0]["latency"][0]["timings"][0]["times_ms"] == [1.0, 2.5]


def test_a_report_of_a_time_with_fewer_sections_is_read() -> None:
    value = json.loads(report().to_json())
    del value["models"][0]["http"]
    assert Report.from_json(json.dumps(value)) == report()
    for kept in (Path(__file__).parent.parent / "docs/benchmarks").glob("*.json"):
        assert Report.from_json(kept.read_text()).schema_version == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.pop("device"), "must have"),
        (lambda value: value.update(schema_version=99), "schema version 99"),
        (lambda value: value["models"][0].update(name=3), r"report\.models\[0\]\.name is 3"),
        (lambda value: value["hardware"].update(cores=True), "cores is True"),
    ],
)
def test_a_wrong_report_is_refused(change: Callable[[Any], object], said: str) -> None:
    value = json.loads(report().to_json())
    change(value)
    with pytest.raises(DataError, match=said):
        Report.from_json(json.dumps(value))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: asked.numbers("10,x", "--candidates"), "--candidates has 'x'"),
        (lambda: asked.numbers("0", "--callers"), "from 1"),
        (lambda: asked.numbers(" , ", "--callers"), "is empty"),
        (lambda: asked.lengths("realistic,9999"), "--lengths has '9999'"),
        (lambda: BenchOptions(sections=("speed",)).check(), "--sections has 'speed'"),
        (lambda: BenchOptions(rounds=0).check(), "--rounds is 0"),
        (lambda: BenchOptions(limit_s=0).check(), "--limit-s is 0"),
        (lambda: BenchOptions(dtype="int3").check(), "dtype is 'int3'"),
    ],
)
def test_wrong_options_are_named(wrong: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        wrong()


def test_quick_keeps_what_was_asked_for() -> None:
    quick = BenchOptions(candidates=(7,), quick=True).as_quick()
    assert quick.candidates == (7,)
    assert quick.lengths == ("realistic", "128")


def test_overhead_is_measured_for_each_installed_plugin() -> None:
    notes: list[str] = []
    found = measure_overhead(notes.append)
    assert [each.plugin for each in found] == ["LangChain", "LlamaIndex"]
    for each in found:
        assert len(each.core.times_ms) == len(each.through_plugin.times_ms) == 100
        assert each.added_ms == each.through_plugin.median_ms - each.core.median_ms
    assert notes == []


def test_the_command_measures_shows_and_writes(tiny: str, tmp_path: Path) -> None:
    arguments = ["--model", tiny, "--device", "cpu", "--candidates", "2,4", "--lengths", "32"]
    arguments += ["--callers", "1", "--rounds", "2", "--limit-s", "2", "--soak", "0.1"]
    result = subprocess.run(
        [sys.executable, "-m", "gpurerank.cli", "bench", *arguments, "-o", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(tmp_path / "mpl")},
    )
    assert result.returncode == 0, result.stderr
    shown = [line for line in result.stdout.splitlines() if not line.startswith("written")]
    assert max(map(len, shown)) <= 100
    assert "32 tokens a pair" in result.stdout
    (path,) = tmp_path.glob("*.json")
    found = Report.from_json(path.read_text())
    (model,) = found.models
    assert model.disagreeing() == set()
    assert {a.contender for a in model.agreement} >= {OURS, SEEN, "ST default", "ST best"}
    assert [(c.lengths, c.candidates, c.tokens) for c in model.latency] == [
        ("32", 2, 64.0),
        ("32", 4, 128.0),
    ]
    assert [len(t.times_ms) for t in model.latency[0].timings] == [2] * len(model.contenders)
    assert {c.callers for c in model.concurrency} == {1}
    assert model.soak is not None
    assert (model.soak.errors, model.soak.calls > 0) == (0, True)
    assert len(list(tmp_path.glob("*.png"))) == 1
