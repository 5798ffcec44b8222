"""Evaluations: what is scored, the measures of each depth, and what is reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gpurerank import (
    BiEncoder,
    Cascade,
    DataError,
    Fusion,
    GPURerankError,
    InputError,
    RankedPassage,
    Reranker,
)
from gpurerank.evaluation import EvalOptions, Evaluation, QuerySet, evaluate
from gpurerank.evaluation.contender_specs import Stage, build_ranker, parse_contender
from gpurerank.evaluation.query_latency import Timing, UncachedRequests, measure_latency
from gpurerank.evaluation.query_set import JudgedQuery
from gpurerank.evaluation.stage_models import StageModels
from gpurerank.models.blend import Blend
from tests.conftest import WordOverlap
from tests.fake_server import serving, speaking
from tests.query_sets import Listwise, perfect_reranker, query_set


class SeenOnce(WordOverlap):
    """Records the pairs, and fails for a pair that comes a second time."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        assert not set(pairs) & set(self.seen)
        assert len(set(pairs)) == len(pairs)
        return super().score_pairs(pairs)


def untimed(queries: QuerySet, contenders: object, options: EvalOptions) -> Evaluation:
    """An evaluation that is interrupted before it measures latencies."""

    def interrupt_timing(work: str, _done: int, _total: int) -> None:
        if work == "timing":
            raise KeyboardInterrupt

    return evaluate(queries, contenders, options, on_progress=interrupt_timing)  # type: ignore[arg-type]


def test_each_pair_is_scored_once_for_all_depths() -> None:
    queries = query_set(10, candidates=6)
    scorer = SeenOnce()
    ranker = Reranker.from_scorer(scorer, name="words")
    evaluation = untimed(queries, {"words": ranker}, EvalOptions(depth=6, depths=(2, 4)))
    pairs = {(q.text, c.text) for q in queries.queries for c in q.candidates}
    assert set(scorer.seen) - {("warm", "up")} == pairs
    for depth in (2, 4, 6):
        point = evaluation.at("words", depth)
        assert point is not None
        expected = []
        for record in evaluation.queries:
            query = next(q for q in queries.queries if q.id == record.id)
            # The scorer puts a relevant passage first wherever it is a candidate.
            expected.append(1.0 if query.reachable(depth) else 0.0)
        assert point.main == expected
        assert evaluation.ceiling[depth] == pytest.approx(np.mean(expected))
    assert evaluation.interrupted
    assert evaluation.at("words", 6).mean("R@6") == 1.0  # type: ignore[union-attr]


def test_queries_without_a_relevant_candidate_are_not_scored() -> None:
    good = query_set(3, candidates=4).queries
    lost = [JudgedQuery(f"l{i}", f"lost {i}", {"elsewhere": 1}, good[0].candidates) for i in (1, 2)]
    empty = JudgedQuery("e", "empty", {"elsewhere": 1}, ())
    scorer = SeenOnce()
    ranker = Reranker.from_scorer(scorer, name="words")
    queries = QuerySet("set", "BM25", (*good, *lost, empty), available=6)
    evaluation = untimed(queries, {"words": ranker}, EvalOptions(depth=4))
    assert not any(query.startswith(("lost", "empty")) for query, _ in scorer.seen)
    values = dict(zip([q.id for q in evaluation.queries], evaluation.points[0].main, strict=True))
    assert values == {"q0": 1, "q1": 1, "q2": 1, "l1": 0, "l2": 0, "e": 0}
    assert sum(not query.reachable for query in evaluation.queries) == 3


@pytest.mark.parametrize("spec", ["cascade:2", "rrf", "weighted:bi-encoder=1+cross-encoder=2"])
def test_rankings_from_replayed_scores_equal_those_of_production(
    spec: str, embedded: Reranker, bi_encoder: BiEncoder
) -> None:
    passages = ["run a command", "a brown fox", "the output of a command", " ", "merge lists"]
    plan = parse_contender(spec, "embedded").plan
    assert plan is not None
    models = StageModels(device="auto", dtype="auto")
    replayed = build_ranker(plan, models.replayed)
    from gpurerank.evaluation.replay import MissingScoreError

    for _ in range(4):
        try:
            ranked = replayed.rank("capture a command's output", passages)
            break
        except MissingScoreError:
            models.compute_missing(lambda *_: None)
    live = build_ranker(plan, lambda s: bi_encoder if s.kind == "bi-encoder" else embedded)
    assert isinstance(live, Cascade | Fusion)
    expected = live.rank("capture a command's output", passages)
    assert [p.index for p in ranked] == [p.index for p in expected]
    np.testing.assert_allclose(
        [p.score for p in ranked],
        [p.score for p in expected],
        atol=1e-3,  # float32, other batches
    )
    models.close()


def test_a_listwise_ranker_is_called_at_each_depth() -> None:
    ranker = Listwise()
    queries = query_set(5, candidates=4)
    evaluation = untimed(queries, {"mine": ranker}, EvalOptions(depth=4, depths=(2,)))
    assert sorted(ranker.passage_counts) == [2] * 5 + [4] * 5
    assert evaluation.contenders[0].description == "custom ranker"
    assert not evaluation.contenders[0].expression


def test_a_pipeline_is_measured_by_what_it_returns() -> None:
    queries = query_set(6, candidates=4)
    answers = {q.text + q.id: next(iter(q.grades)) for q in queries.queries}

    def pipeline(question: str) -> list[tuple[str, str, float]]:
        (answer,) = {a for text, a in answers.items() if text.startswith(question)}
        return [("junk", "junk", 2.0), (answer, "text", 1.0)]

    evaluation = evaluate(queries, {"pipeline": pipeline}, EvalOptions(depth=4, depths=(2,)))
    (point,) = evaluation.points
    assert (point.contender, point.depth) == ("pipeline", 4)
    assert point.values["RR@10"] == [0.5] * 6
    assert point.latency is not None
    assert len(point.latency.times_ms) == 6
    assert evaluation.contenders[0].description == "custom pipeline"


def test_an_interrupted_run_keeps_the_finished_queries() -> None:
    queries = query_set(150, candidates=10)

    class Stopping(Listwise):
        def rank(self, *arguments: object) -> list[RankedPassage]:
            if len(self.passage_counts) == 100:
                raise KeyboardInterrupt
            return super().rank(*arguments)  # type: ignore[arg-type]

    evaluation = evaluate(queries, {"mine": Stopping()}, EvalOptions(depth=10, depths=(10,)))
    assert evaluation.interrupted
    assert 0 < len(evaluation.queries) < 100
    assert evaluation.available == 150
    assert "interrupted" in evaluation.notes[0]
    assert len(evaluation.points[0].main) == len(evaluation.queries)
    ids = [query.id for query in evaluation.queries]
    assert ids != sorted(ids, key=lambda i: int(i[1:])), "a random sample, not the first queries"
    json.loads(evaluation.to_json())


def test_a_failure_keeps_the_finished_queries_and_an_early_one_is_raised() -> None:
    class Failing(Listwise):
        def __init__(self, after: int) -> None:
            super().__init__()
            self.after = after

        def rank(self, *arguments: object) -> list[RankedPassage]:
            if len(self.passage_counts) >= self.after:
                raise ConnectionError("the server\nleft")
            return super().rank(*arguments)  # type: ignore[arg-type]

    options = EvalOptions(depth=10, depths=(10,))
    evaluation = evaluate(query_set(150, candidates=10), {"mine": Failing(100)}, options)
    assert evaluation.notes == [
        "stopped by ConnectionError: the server left; the results cover the queries finished until"
        " then"
    ]
    with pytest.raises(ConnectionError):
        evaluate(query_set(150, candidates=10), {"mine": Failing(3)}, options)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(query_set(3), {"mine": Listwise()}, options, on_progress=stop)


def test_depths_beyond_the_candidates_are_left_out_with_a_note() -> None:
    evaluation = untimed(query_set(4, candidates=6), {"mine": Listwise()}, EvalOptions(depth=50))
    assert (evaluation.depth, evaluation.depths) == (6, [6])
    assert evaluation.notes[0].startswith("no query has more than 6 candidates")


def test_an_invalid_contender_is_named() -> None:
    for contenders, message in (
        ("cross-encoder", "contenders is the string 'cross-encoder'"),
        ({"mine": 5}, "contender 'mine' is int"),
        (["nothing"], "contender 'nothing'"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(query_set(2), contenders)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a depth is 0"):
        evaluate(query_set(2), {"mine": Listwise()}, EvalOptions(depth=0))


def test_a_server_is_a_contender_and_a_missing_one_is_named() -> None:
    with serving(speaking("gpurerank")) as server:
        queries = query_set(6)
        evaluation = untimed(
            queries, [server.url, f"rrf:first-stage+{server.url}"], EvalOptions(depth=8)
        )
        mine = untimed(queries, {"mine": perfect_reranker()}, EvalOptions(depth=8))
        assert [p.contender for p in evaluation.main_points()] == [
            server.url,
            f"rrf:first-stage+{server.url}",
        ]
        assert evaluation.main_points()[0].main == mine.main_points()[0].main
    with pytest.raises(GPURerankError, match=r"127\.0\.0\.1"):
        evaluate(queries, [server.url])


def test_questions_and_a_search_make_a_query_set() -> None:
    def search(question: str) -> list[tuple[str, str, float]]:
        return [(f"{question}-{row}", f"text {row}", 1.0 - row) for row in range(5)]

    questions = [("a", ["a-2"]), ("b", {"b-0", "b-9"}), (" ", ["x"]), ("c", [])]
    queries = QuerySet.from_search(search, questions, depth=3, name="mine")
    assert [(q.text, dict(q.grades)) for q in queries.queries] == [
        ("a", {"a-2": 1}),
        ("b", {"b-0": 1, "b-9": 1}),
    ]
    assert [c.id for c in queries.queries[0].candidates] == ["a-0", "a-1", "a-2"]
    assert [fault.what for fault in queries.faults] == [
        "blank question",
        "question without a relevant id",
    ]
    with pytest.raises(DataError, match="no question has a relevant id"):
        QuerySet.from_search(search, [("c", [])])
    with pytest.raises(InputError, match=r"langchain_gpurerank\.as_search"):
        QuerySet.from_search(object(), [("a", ["b"])])  # type: ignore[arg-type]


def test_latency_has_20_rounds_and_repeats_no_text() -> None:
    ranker = Listwise()
    seen: set[str] = set()

    class NoRepeats(Listwise):
        def rank(self, query: str, passages: Sequence[str], *_: object) -> list[RankedPassage]:
            assert not seen & set(passages)
            seen.update(passages)
            return ranker.rank(query, passages)

    requests = UncachedRequests(query_set(3, candidates=4).queries, seed=0)
    timing = measure_latency(NoRepeats(), requests, depth=3)
    assert len(timing.times_ms) == 20
    assert set(ranker.passage_counts) == {3}
    assert timing.p95_ms is not None
    assert timing.p50_ms <= timing.p95_ms <= max(timing.times_ms)
    embedded: list[str] = []

    class Embedder:
        def embed_passages(self, passages: Sequence[str]) -> None:
            embedded.extend(passages)

    measure_latency(NoRepeats(), requests, depth=2, embedders=[Embedder()])  # type: ignore[list-item]
    assert set(embedded) < seen
    assert len(embedded) == 2 * 22
    assert Timing([1.0, 9.0, 2.0]).p50_ms == 2.0
    assert Timing([1.0, 9.0, 2.0]).p95_ms is None


def test_passages_are_embedded_ahead_by_the_bi_encoder_of_a_stage(
    tiny: str, tmp_path: Path
) -> None:
    with_blend = str(tmp_path / "with_blend")
    shutil.copytree(tiny, with_blend)
    Blend(weight=12.0, center=0.25).write(Path(with_blend))
    models = StageModels(device="cpu", dtype="float32")
    (bi_encoder,) = models.embedders(Stage("bi-encoder", "embedded"))
    (blended,) = models.embedders(Stage("cross-encoder", with_blend))
    assert isinstance(bi_encoder, BiEncoder)
    assert isinstance(blended, BiEncoder)
    assert models.embedders(Stage("cross-encoder", tiny)) == []
    late_interaction = Stage("cross-encoder", "embedded")
    assert models.embedders(late_interaction) == [], "token vectors are not stored in an index"
    models.close()
