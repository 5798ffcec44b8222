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
from rich.console import Console

from benchmarks.batch_size_search import TUNED
from benchmarks.concurrency import call_together
from benchmarks.exact_text import ExactTextGenerator
from benchmarks.http_load import LoadJob, run_load
from benchmarks.peer_report import (
    HttpRecord,
    OverloadRecord,
    PeerContenderRecord,
    PeerModelRecord,
    PeerReport,
    RayRecord,
    Setting,
)
from benchmarks.peer_tables import http_lines, latency_table, ray_line, render_peer_report
from benchmarks.peers import CACHED, TRANSFORMERS
from benchmarks.plugin_overhead import measure_overhead
from benchmarks.server_process import serving
from benchmarks.soak import growth_percent
from benchmarks.stand_in_models import prepare_model, unigram_tokenizer
from gpurerank.benchmark.bench_report import LatencyCell, Timing
from gpurerank.benchmark.implementations import GPURERANK, REFERENCE
from gpurerank.benchmark.score_agreement import compare_scores
from gpurerank.benchmark.synthetic_text import Request
from gpurerank.errors import DataError, ModelError
from gpurerank.models.hardware import Hardware
from tests.serving import options_of, running
from tests.time_limits import HANG_S
from tests.tiny_models import bytelevel_tokenizer, wordpiece_tokenizer

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("tokenizer", [wordpiece_tokenizer, bytelevel_tokenizer, unigram_tokenizer])
@pytest.mark.parametrize("pair_tokens", [64, 257])
def test_exact_pairs_have_exactly_their_tokens(
    tokenizer: Callable[[], Any], pair_tokens: int
) -> None:
    built = tokenizer()
    request = ExactTextGenerator(built, 512).request(str(pair_tokens), 5)
    counts = [len(built(request.query, passage)["input_ids"]) for passage in request.passages]
    assert counts == request.lengths == [pair_tokens] * 5
    assert request.tokens == 5 * pair_tokens
    assert len(set(request.passages)) == 5


def test_the_peer_table_marks_who_disagrees_and_what_was_skipped() -> None:
    record = PeerModelRecord("m", "random", "stand-in")
    record.contenders = [PeerContenderRecord(name, "", "float32") for name in (GPURERANK, "wrong")]
    scores = np.array([0.1, 0.9])
    record.agreement = [compare_scores("wrong", "float32", scores, scores[::-1])]
    timings = [Timing(GPURERANK, [2.0] * 20), Timing("wrong", [1.0] * 20)]
    record.latency = [
        LatencyCell("128", 10, 1_280.0, 1e9, 0.5, timings),
        LatencyCell("128", 1_000, 128_000.0, skipped_s=95.0),
    ]
    text = shown(latency_table(record, "128"))
    assert "2.00 25%" in text
    assert "(1.00)" in text
    assert "disagrees" in text
    assert "needs --limit-s 95" in text


def shown(*parts: Any) -> str:
    """The parts as a terminal of 100 columns shows them, with single spaces."""
    console = Console(width=100, file=io.StringIO(), record=True)
    for part in parts:
        console.print(part)
    return " ".join(console.export_text().replace("│", " ").split())


def test_callers_run_together_and_a_failure_is_raised() -> None:
    requests = [Request(str(i), ["a"], [3]) for i in range(8)]
    queries: list[str] = []
    wall_s, calls_ms = call_together(lambda query, _: queries.append(query), requests)
    assert sorted(queries) == [str(i) for i in range(8)]
    assert len(calls_ms) == 8
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


def test_load_is_sent_and_every_outcome_is_returned(tiny: str, tmp_path: Path) -> None:
    bodies = tmp_path / "bodies"
    valid: dict[str, Any] = {"query": "a", "documents": ["b", "c"]}
    bodies.write_text("\n".join(json.dumps(body) for body in [valid] * 5 + [{"query": "a"}]))
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


def overload(**changes: Any) -> OverloadRecord:
    values: dict[str, Any] = {
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
    return OverloadRecord(**{**values, **changes})


def test_measurements_over_http_are_shown() -> None:
    record = HttpRecord(64, 20, 1_280, [2.0, 1.0, 4.0], [4.0, 2.5, 2.0], [9.0] * 30, overload())
    load, over = (str(line) for line in http_lines(record))
    assert "512 pairs/s, 80% of the 640" in load
    assert "goodput 95% of the peak; 160 answered (p95 2,100 ms); 140 refused with 429" in over
    assert "Retry-After" not in over
    bad = overload(without_retry_after=3, recovered_s=None)
    _, over = map(str, http_lines(HttpRecord(64, 20, 10, [1.0], [1.0], [1.0], bad)))
    assert "3 of 429 without Retry-After" in over
    assert "not recovered" in over
    (skipped,) = http_lines(HttpRecord(64, 20, skipped_s=90.0))
    assert "needs --limit-s 90" in str(skipped)


def test_measurements_with_ray_are_shown() -> None:
    line = ray_line(RayRecord(20_000, 2, [100.0, 90.0, 95.0], [105.0, 99.75, 90.0], 8.0, 2e-7))
    assert "20,000 pairs in one call to 2 replicas: 99.8 s, +5.0% compared with 95.0 s" in line
    assert "started in 8.00 s; largest difference of two scores 2.0e-07" in line
    measured = report()
    measured.models[0].ray = RayRecord(20_000, 2, skipped_s=500.0)
    assert "2 replicas: needs --limit-s 500" in shown(*render_peer_report(measured))


def report() -> PeerReport:
    searched = [Setting("float32", 8, 9, 1.5)]
    record = PeerModelRecord("m", "random", "stand-in")
    record.contenders = [PeerContenderRecord(GPURERANK, "s", "float32", searched)]
    record.latency = [LatencyCell("128", 10, 1_280.0, None, None, [Timing(GPURERANK, [1.0, 2.5])])]
    hardware = Hardware("cpu", ["avx2"], 2, 1, 1 << 34)
    values = ("2026-01-01", {"rounds": "None"}, hardware, {"python": "3"}, "cpu", [record])
    return PeerReport(*values, bandwidth_giga_bytes_s=1.0)


def test_a_report_reads_back_as_it_was_written() -> None:
    text = report().to_json()
    assert PeerReport.from_json(text) == report()
    assert json.loads(text)["models"][0]["latency"][0]["timings"][0]["times_ms"] == [1.0, 2.5]


def test_a_report_with_fewer_measurements_is_read() -> None:
    value = json.loads(report().to_json())
    del value["models"][0]["http"]
    assert PeerReport.from_json(json.dumps(value)) == report()
    published = list((ROOT / "docs/benchmarks").glob("*.json"))
    assert published
    for path in published:
        assert PeerReport.from_json(path.read_text()).schema_version == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.pop("device"), "must have"),
        (lambda value: value.update(unknown=1), "must have"),
        (lambda value: value.update(schema_version=99), "schema version 99"),
        (lambda value: value["models"][0].update(name=3), r"report\.models\[0\]\.name is 3"),
        (lambda value: value["hardware"].update(cores=True), "cores is True"),
    ],
)
def test_a_wrong_report_is_refused(change: Callable[[Any], object], message: str) -> None:
    value = json.loads(report().to_json())
    change(value)
    with pytest.raises(DataError, match=message):
        PeerReport.from_json(json.dumps(value))


def test_overhead_is_measured_for_each_installed_plugin() -> None:
    notes: list[str] = []
    records = measure_overhead(notes.append)
    assert [record.plugin for record in records] == ["LangChain", "LlamaIndex"]
    for record in records:
        assert len(record.core.times_ms) == len(record.through_plugin.times_ms) == 100
        assert record.added_ms == record.through_plugin.median_ms - record.core.median_ms
    assert notes == []


def test_a_stand_in_is_built_once_and_has_spread_scores(tmp_path: Path) -> None:
    folder, record = prepare_model("tinybert-l2", tmp_path, tmp_path)
    assert (record.name, record.weights, record.tokenizer) == ("tinybert-l2", "random", "its own")
    config = Path(folder) / "config.json"
    assert json.loads(config.read_text())["hidden_size"] == 128
    built = config.stat().st_mtime_ns
    assert prepare_model("tinybert-l2", tmp_path, tmp_path)[0] == folder
    assert config.stat().st_mtime_ns == built
    assert [path.name for path in tmp_path.iterdir()] == ["tinybert-l2-own-1"]


def run_benchmark(tmp_path: Path, *arguments: str) -> tuple[str, PeerReport]:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, "-o", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(tmp_path / "mpl")},
    )
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if not line.startswith("written")]
    assert max(map(len, lines)) <= 100
    (path,) = tmp_path.glob("*.json")
    return result.stdout, PeerReport.from_json(path.read_text())


def test_peers_are_compared_on_the_same_texts(tiny: str, tmp_path: Path) -> None:
    arguments = ["--model", tiny, "--device", "cpu", "--candidates", "2,4", "--lengths", "32"]
    output, result = run_benchmark(tmp_path, "latency", *arguments, "--rounds", "2")
    assert "32 tokens per pair" in output
    (model,) = result.models
    assert model.disagreeing() == set()
    names = {GPURERANK, CACHED, REFERENCE, TUNED, TRANSFORMERS}
    assert {agreement.contender for agreement in model.agreement} >= names
    assert [(c.lengths, c.candidates, c.tokens) for c in model.latency] == [
        ("32", 2, 64.0),
        ("32", 4, 128.0),
    ]
    assert [len(t.times_ms) for t in model.latency[0].timings] == [2] * len(model.contenders)
    (searched,) = (c.searched for c in model.contenders if c.name == TUNED)
    assert [setting.batch_size for setting in searched][:2] == [8, 16]
    assert result.bandwidth_giga_bytes_s > 0
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_concurrency_is_measured(tiny: str, tmp_path: Path) -> None:
    arguments = ["--model", tiny, "--device", "cpu", "--callers", "1,2", "--rounds", "1"]
    output, result = run_benchmark(tmp_path, "concurrency", *arguments)
    assert "Concurrent callers" in output
    (model,) = result.models
    assert [(cell.way, cell.callers) for cell in model.concurrency] == [
        (way, callers)
        for callers in (1, 2)
        for way in ("gpurerank, callers", "gpurerank, one call", f"{TUNED}, locked")
    ]
    for cell in model.concurrency:
        assert len(cell.wall_s) == 1
        assert len(cell.caller_ms) == (1 if "one call" in cell.way else cell.callers)


def test_a_soak_test_counts_calls_and_errors(tiny: str, tmp_path: Path) -> None:
    arguments = ["--model", tiny, "--device", "cpu", "--seconds", "0.1"]
    _, result = run_benchmark(tmp_path, "soak", *arguments)
    soak = result.models[0].soak
    assert soak is not None
    assert (soak.errors, soak.calls > 0) == (0, True)
