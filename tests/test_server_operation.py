"""What an operator sees: probes, metrics, logs, traces, the command line."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from gpurerank import Reranker, cli
from gpurerank.errors import NotFiniteError
from gpurerank.server.logs import JsonLines
from gpurerank.server.models import ServedModels
from tests.serving import (
    DOCUMENTS,
    QUERY,
    Failing,
    Gate,
    Running,
    eventually,
    options_of,
    running,
)
from tests.time_limits import HANG_S

ASKED = {"query": QUERY, "documents": DOCUMENTS}
MARKER = "xylophone"


@pytest.fixture
def server(model_folder: Callable[[str], str]) -> Iterator[Running]:
    with running(options_of(model_folder("bert"), cached_scores=100)) as found:
        yield found


def scraped(server: Running) -> dict[tuple[str, ...], float]:
    text = server.client.get("/metrics").text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_was_asked(server: Running) -> None:
    # The engine is the process's; what others asked of it before is in its counts.
    before = scraped(server)
    items = "gpurerank_batch_items_total", "cross-encoder", "tiny"
    batched = "gpurerank_batch_tokens_total", "cross-encoder", "tiny"
    tokens = server.post("/v1/rerank", ASKED).json()["usage"]["total_tokens"]
    server.post("/v1/rerank", ASKED)
    server.post("/embed", {"inputs": ["a", "b"]})
    server.post("/v1/rerank", {**ASKED, "documents": []})
    server.client.get(f"/{MARKER}")
    found = scraped(server)
    assert found["gpurerank_requests_total", "/v1/rerank", "200"] == 2
    assert found["gpurerank_requests_total", "/v1/rerank", "400"] == 1
    assert found["gpurerank_requests_total", "404", "other"] == 1
    assert found["gpurerank_request_seconds_count", "/v1/rerank"] == 3
    assert found["gpurerank_passages_total",] == 2 * len(DOCUMENTS) + 2
    assert found["gpurerank_rejected_total", "empty"] == 1
    assert found["gpurerank_rejected_total", "no_such_path"] == 1
    assert found[items] - before[items] == len(DOCUMENTS)
    assert found[batched] - before[batched] == tokens
    assert found["gpurerank_cached_scores_total", "no"] == len(DOCUMENTS)
    assert found["gpurerank_cached_scores_total", "yes"] == len(DOCUMENTS)
    assert found["gpurerank_queued_tokens",] == 0
    assert found["gpurerank_heartbeat_age_seconds", "cross-encoder", "tiny"] == 0
    assert not any(MARKER in part for key in found for part in key)


def test_metrics_have_the_process_and_no_time_of_creation(server: Running) -> None:
    server.post("/v1/rerank", ASKED)
    found = scraped(server)
    assert found["process_resident_memory_bytes",] > 100 << 20
    assert found["process_open_fds",] > 3
    assert ("python_gc_collections_total", "0") in found
    assert found["gpurerank_open_connections",] == 1
    assert not [key for key in found if key[0].endswith("_created")]
    assert found["gpurerank_request_seconds_bucket", "/v1/rerank", "120.0"] == 1
    assert ("gpurerank_request_seconds_bucket", "/v1/rerank", "600.0") in found


def test_probes_answer_while_the_model_works(model_folder: Callable[[str], str]) -> None:
    import threading

    gate = Gate()

    def change(models: ServedModels) -> None:
        models.rerankers = {"gate": Reranker.from_scorer(gate, name="gate")}

    with running(options_of(model_folder("bert")), change) as server:
        asked = threading.Thread(target=server.post, args=("/v1/rerank", ASKED))
        asked.start()
        eventually(lambda: gate.calls == 1)
        for path in ("/livez", "/readyz", "/metrics"):
            assert server.client.get(path, timeout=HANG_S).status_code == 200
        assert server.client.get("/livez").json()["heartbeat_age_s"] == {"mini (bi-encoder)": 0.0}
        server.service.draining = True
        assert server.client.get("/readyz").status_code == 503
        assert server.client.get("/livez").status_code == 200
        gate.open.set()
        asked.join(HANG_S)


def test_late_interaction_is_watched_beside_its_model(model_folder: Callable[[str], str]) -> None:
    def change(models: ServedModels) -> None:
        models.rerankers = {"embedded": Reranker("embedded")}

    def read() -> float:
        labels = {"model": "embedded", "kind": "late-interaction"}
        return server.sample("gpurerank_batch_items_total", **labels)

    with running(options_of(model_folder("bert")), change) as server:
        before = read()
        documents = [f"{document}, as nobody said before" for document in DOCUMENTS]
        server.post("/v1/rerank", {"query": "who said so?", "documents": documents})
        eventually(lambda: read() - before == 1 + len(DOCUMENTS))
        assert server.client.get("/livez").json()["heartbeat_age_s"] == {
            "embedded (cross-encoder)": 0.0,
            "embedded (late-interaction)": 0.0,
            "mini (bi-encoder)": 0.0,
        }


@pytest.mark.parametrize("error", [NotFiniteError, RuntimeError])
def test_logs_hold_no_text(
    model_folder: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    def change(models: ServedModels) -> None:
        models.rerankers["failing"] = Reranker.from_scorer(Failing(error), name="failing")

    caplog.set_level(logging.DEBUG)
    asked = {"query": f"{MARKER}?", "documents": [f"a {MARKER}"], "model": "tiny"}
    with running(options_of(model_folder("bert")), change) as server:
        assert server.post("/v1/rerank", asked).status_code == 200
        failed = server.post("/v1/rerank", {**asked, "model": "failing"})
        wrong = server.post("/v1/rerank", {**asked, "top_n": MARKER})
        server.client.get(f"/{MARKER}?{MARKER}={MARKER}")
        server.client.post("/rerank", content=f"{{{MARKER}")
    assert failed.status_code >= 424
    assert MARKER not in failed.text + wrong.text
    own = [r for r in caplog.records if r.name.startswith(("gpurerank", "uvicorn"))]
    lines = [JsonLines().format(record) for record in own]
    assert not [line for line in lines if MARKER in line]
    told = [json.loads(line) for line in lines]
    done = [line for line in told if line["message"] == "request"]
    assert [line["status"] for line in done][:2] == [200, failed.status_code]
    assert done[0]["path"] == "/v1/rerank"
    if error is RuntimeError:
        broke = next(line for line in told if line["level"] == "error")
        assert broke["exception"] == "RuntimeError"
        assert broke["where"].startswith("score_pairs:")


def test_each_request_has_an_id_that_its_log_line_has(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gpurerank.server")
    shown = server.post("/v1/rerank", ASKED).headers["x-request-id"]
    told = [r.fields for r in caplog.records if hasattr(r, "fields")]
    assert [fields["id"] for fields in told] == [shown]


@pytest.mark.parametrize("error", [NotFiniteError, RuntimeError])
def test_every_line_of_a_request_has_its_id(
    model_folder: Callable[[str], str], caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    caplog.set_level(logging.INFO, "gpurerank.server")

    def change(models: ServedModels) -> None:
        models.rerankers = {"failing": Reranker.from_scorer(Failing(error), name="failing")}

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("gpurerank.server")
    logger.addHandler(handler)
    try:
        with running(options_of(model_folder("bert")), change) as server:
            answer = server.post("/v1/rerank", ASKED)
    finally:
        logger.removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    of_request = [line for line in lines if line["message"] != "draining"]
    assert len(of_request) == 2, lines
    assert {line["id"] for line in of_request} == {answer.headers["x-request-id"]}


def test_a_request_is_a_span_under_the_callers_own(server: Running) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = server.post("/v1/rerank", ASKED, traceparent=parent)
    assert answer.status_code == 200
    eventually(lambda: len(exporter.get_finished_spans()) == 2)
    work, whole = exporter.get_finished_spans()
    assert work.name == "gpurerank"
    assert whole.name == "POST /v1/rerank"
    assert work.parent == whole.context
    assert whole.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert (work.attributes or {})["gpurerank.passages"] == len(DOCUMENTS)
    assert QUERY not in work.to_json() + whole.to_json()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--host", "0.0.0.0"], "--open-to-all"),
        (["--port", "70000"], "65535"),
        (["--drain-s", "0"], "drain_s"),
        (["--api-key", "short"], "8 characters"),
        (["--reranker", "a=embedded", "--reranker", "a=embedded"], "'a'"),
        (["--reranker", "/no/such/folder"], "no folder /no/such/folder"),
        (["--embedder", "x=./no-such-folder"], "no folder ./no-such-folder"),
        (["--host", "192.0.2.1", "--open-to-all"], "192.0.2.1"),
        (["--replicas", "1"], "--replicas would have no effect"),
        (["--num-cpus", "2", "--num-gpus", "1"], "--num-cpus and --num-gpus would have no effect"),
        (["--ray", "--max-connections", "9"], "--max-connections would have no effect"),
        (["--embedder", "embedded", "--cached-scores", "9"], "no reranker is served"),
    ],
)
def test_a_wrong_option_is_one_line(
    arguments: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpurerank", "serve", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert named in told[0]
