"""Judging contenders: what is scored, what each depth is worth, and what is advised."""

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
from gpurerank.evaluation.contenders import Stage, build, parse
from gpurerank.evaluation.latency import Requests, Timing, measure_latency
from gpurerank.evaluation.queries import JudgedQuery
from gpurerank.evaluation.stages import Stages
from gpurerank.models.blend import Blend
from tests.conftest import WordOverlap
from tests.fake_server import serving, speaking
from tests.made_up import Listwise, knowing, query_set


class Counting(WordOverlap):
    """Counts what it is asked, and never twice for the same pair."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        assert not set(pairs) & set(self.seen)
        assert len(set(pairs)) == len(pairs)
        return super().score_pairs(pairs)


def untimed(queries: QuerySet, contenders: object, options: EvalOptions) -> Evaluation:
    """An evaluation that stops where the timing would begin."""

    def say(what: str, _done: int, _total: int) -> None:
        if what == "timing":
            raise KeyboardInterrupt

    return evaluate(queries, contenders, options, say=say)  # type: ignore[arg-type]


def test_each_pair_is_scored_once_for_all_depths() -> None:
    queries = query_set(10, candidates=6)
    scorer = Counting()
    ranker = Reranker.from_scorer(scorer, name="words")
    found = untimed(queries, {"words": ranker}, EvalOptions(depth=6, depths=(2, 4)))
    pairs = {(q.text, c.text) for q in queries.queries for c in q.candidates}
    assert set(scorer.seen) - {("warm", "up")} == pairs
    for depth in (2, 4, 6):
        point = found.at("words", depth)
        assert point is not None
        expected = []
        for record in found.queries:
            query = next(q for q in queries.queries if q.id == record.id)
            # The scorer knows the answer: what is among the candidates comes first.
            expected.append(1.0 if query.reachable(depth) else 0.0)
        assert point.main == expected
        assert found.ceiling[depth] == pytest.approx(np.mean(expected))
    assert found.interrupted
    assert found.at("words", 6).mean("R@6") == 1.0  # type: ignore[union-attr]


def test_queries_that_nothing_can_help_are_not_scored() -> None:
    good = query_set(3, candidates=4).queries
    lost = [JudgedQuery(f"l{i}", f"lost {i}", {"elsewhere": 1}, good[0].candidates) for i in (1, 2)]
    empty = JudgedQuery("e", "empty", {"elsewhere": 1}, ())
    scorer = Counting()
    ranker = Reranker.from_scorer(scorer, name="words")
    queries = QuerySet("set", "BM25", (*good, *lost, empty), judged=6)
    found = untimed(queries, {"words": ranker}, EvalOptions(depth=4))
    assert not any(query.startswith(("lost", "empty")) for query, _ in scorer.seen)
    values = dict(zip([q.id for q in found.queries], found.points[0].main, strict=True))
    assert values == {"q0": 1, "q1": 1, "q2": 1, "l1": 0, "l2": 0, "e": 0}
    assert sum(not query.reachable for query in found.queries) == 3


@pytest.mark.parametrize("spec", ["cascade:2", "rrf", "weighted:bi-encoder=1+cross-encoder=2"])
def test_what_is_made_from_known_scores_is_what_production_ranks(
    spec: str, embedded: Reranker, bi_encoder: BiEncoder
) -> None:
    passages = ["run a command", "a brown fox", "the output of a command", " ", "merge lists"]
    plan = parse(spec, "embedded").plan
    assert plan is not None
    stages = Stages(device="auto", dtype="auto")
    known = build(plan, stages.known)
    from gpurerank.evaluation.known import UnknownScoreError

    for _ in range(4):
        try:
            ranked = known.rank("capture a command's output", passages)
            break
        except UnknownScoreError:
            stages.learn(lambda *_: None)
    live = build(plan, lambda s: bi_encoder if s.kind == "bi-encoder" else embedded)
    assert isinstance(live, Cascade | Fusion)
    expected = live.rank("capture a command's output", passages)
    assert [p.index for p in ranked] == [p.index for p in expected]
    np.testing.assert_allclose(
        [p.score for p in ranked],
        [p.score for p in expected],
        atol=1e-3,  # float32, other batches
    )
    stages.close()


def test_a_ranker_of_unknown_kind_is_asked_at_each_depth() -> None:
    ranker = Listwise()
    queries = query_set(5, candidates=4)
    found = untimed(queries, {"mine": ranker}, EvalOptions(depth=4, depths=(2,)))
    assert sorted(ranker.asked) == [2] * 5 + [4] * 5
    assert found.contenders[0].described == "a ranker of your own"
    assert not found.contenders[0].expression


def test_a_pipeline_is_judged_by_what_it_returns() -> None:
    queries = query_set(6, candidates=4)
    answers = {q.text + q.id: next(iter(q.grades)) for q in queries.queries}

    def pipeline(question: str) -> list[tuple[str, str, float]]:
        (answer,) = {a for text, a in answers.items() if text.startswith(question)}
        return [("junk", "junk", 2.0), (answer, "text", 1.0)]

    found = evaluate(queries, {"pipeline": pipeline}, EvalOptions(depth=4, depths=(2,)))
    (point,) = found.points
    assert (point.contender, point.depth) == ("pipeline", 4)
    assert point.values["RR@10"] == [0.5] * 6
    assert point.latency is not None
    assert len(point.latency.times_ms) == 6
    assert found.contenders[0].described == "a pipeline of your own"


def test_an_interrupted_run_keeps_what_is_finished() -> None:
    queries = query_set(150, candidates=10)

    class Stopping(Listwise):
        def rank(self, *arguments: object) -> list[RankedPassage]:
            if len(self.asked) == 100:
                raise KeyboardInterrupt
            return super().rank(*arguments)  # type: ignore[arg-type]

    found = evaluate(queries, {"mine": Stopping()}, EvalOptions(depth=10, depths=(10,)))
    assert found.interrupted
    assert 0 < len(found.queries) < 100
    assert found.judged == 150
    assert "interrupted" in found.notes[0]
    assert len(found.points[0].main) == len(found.queries)
    ids = [query.id for query in found.queries]
    assert ids != sorted(ids, key=lambda i: int(i[1:])), "a random part, not the first"
    json.loads(found.to_json())


def test_a_failure_keeps_what_is_finished_and_an_early_one_is_raised() -> None:
    class Failing(Listwise):
        def __init__(self, after: int) -> None:
            super().__init__()
            self.after = after

        def rank(self, *arguments: object) -> list[RankedPassage]:
            if len(self.asked) >= self.after:
                raise ConnectionError("the server\nleft")
            return super().rank(*arguments)  # type: ignore[arg-type]

    options = EvalOptions(depth=10, depths=(10,))
    found = evaluate(query_set(150, candidates=10), {"mine": Failing(100)}, options)
    assert found.notes == [
        "stopped by ConnectionError: the server left; what was finished is shown"
    ]
    with pytest.raises(ConnectionError):
        evaluate(query_set(150, candidates=10), {"mine": Failing(3)}, options)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(query_set(3), {"mine": Listwise()}, options, say=stop)


def test_depths_beyond_the_candidates_are_said() -> None:
    found = untimed(query_set(4, candidates=6), {"mine": Listwise()}, EvalOptions(depth=50))
    assert (found.depth, found.depths) == (6, [6])
    assert found.notes[0].startswith("no query has more than 6 candidates")


def test_wrong_contenders_are_named() -> None:
    for contenders, said in (
        ("cross-encoder", "contenders is one text"),
        ({"mine": 5}, "contender 'mine' is int"),
        (["nothing"], "contender 'nothing'"),
    ):
        with pytest.raises(InputError, match=said):
            evaluate(query_set(2), contenders)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a depth is 0"):
        evaluate(query_set(2), {"mine": Listwise()}, EvalOptions(depth=0))


def test_a_server_is_a_contender_and_one_that_is_gone_is_named() -> None:
    with serving(speaking("gpurerank")) as server:
        queries = query_set(6)
        found = untimed(
            queries, [server.url, f"rrf:first-stage+{server.url}"], EvalOptions(depth=8)
        )
        mine = untimed(queries, {"mine": knowing()}, EvalOptions(depth=8))
        assert [p.contender for p in found.shown()] == [
            server.url,
            f"rrf:first-stage+{server.url}",
        ]
        assert found.shown()[0].main == mine.shown()[0].main
    with pytest.raises(GPURerankError, match=r"127\.0\.0\.1"):
        evaluate(queries, [server.url])


def test_questions_with_a_search_become_queries() -> None:
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
    with pytest.raises(DataError, match="no question with a relevant id"):
        QuerySet.from_search(search, [("c", [])])
    with pytest.raises(InputError, match=r"langchain_gpurerank\.as_search"):
        QuerySet.from_search(object(), [("a", ["b"])])  # type: ignore[arg-type]


def test_latency_counts_rounds_and_never_shows_a_text_twice() -> None:
    ranker = Listwise()
    seen: set[str] = set()

    class Watching(Listwise):
        def rank(self, query: str, passages: Sequence[str], *_: object) -> list[RankedPassage]:
            assert not seen & set(passages)
            seen.update(passages)
            return ranker.rank(query, passages)

    requests = Requests(query_set(3, candidates=4).queries, seed=0)
    timing = measure_latency(Watching(), requests, depth=3)
    assert len(timing.times_ms) == 20
    assert set(ranker.asked) == {3}
    assert timing.p95_ms is not None
    assert timing.p50_ms <= timing.p95_ms <= max(timing.times_ms)
    embedded: list[str] = []

    class Embedder:
        def embed_passages(self, passages: Sequence[str]) -> None:
            embedded.extend(passages)

    measure_latency(Watching(), requests, depth=2, ahead=[Embedder()])  # type: ignore[list-item]
    assert set(embedded) < seen
    assert len(embedded) == 2 * 22
    assert Timing([1.0, 9.0, 2.0]).p50_ms == 2.0
    assert Timing([1.0, 9.0, 2.0]).p95_ms is None


def test_passages_are_embedded_ahead_by_what_a_stage_is_built_on(tiny: str, tmp_path: Path) -> None:
    on_top = str(tmp_path / "on_top")
    shutil.copytree(tiny, on_top)
    Blend(weight=12.0, center=0.25).write(Path(on_top))
    stages = Stages(device="cpu", dtype="float32")
    bi = stages.embedder(Stage("bi-encoder", "embedded"))
    below = stages.embedder(Stage("cross-encoder", on_top))
    assert isinstance(bi, BiEncoder)
    assert isinstance(below, BiEncoder)
    assert stages.embedder(Stage("cross-encoder", tiny)) is None
    assert stages.embedder(Stage("cross-encoder", "embedded")) is None, "reads token by token"
    stages.close()
