"""Judging contenders: what is scored, what each depth is worth, and what is advised."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import ir_measures
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
from gpurerank.collection import Collection
from gpurerank.evaluation import EvalOptions, Evaluation, QuerySet, evaluate
from gpurerank.evaluation.advice import choose
from gpurerank.evaluation.contenders import (
    CascadeOf,
    FusionOf,
    Stage,
    build,
    default_specs,
    parse,
)
from gpurerank.evaluation.first_stage import bm25, nearest, read_run
from gpurerank.evaluation.frontier import efficient
from gpurerank.evaluation.latency import Requests, Timing, measure_latency
from gpurerank.evaluation.measures import MAIN, Evaluator, distinct, perfect
from gpurerank.evaluation.queries import Candidate, JudgedQuery, sample
from gpurerank.evaluation.records import Interval, Point
from gpurerank.evaluation.significance import Comparison
from gpurerank.evaluation.stages import Stages
from gpurerank.evaluation.wording import as_python, described, imports
from gpurerank.models.blend import Blend
from tests.conftest import WordOverlap
from tests.fake_server import serving, speaking
from tests.test_collection import write_collection

TOPICS = ["cats", "rivers", "violins", "taxes", "bread", "glaciers", "chess", "bees", "kites"]


def query_set(count: int = 12, candidates: int = 8, seed: int = 0) -> QuerySet:
    """Queries whose relevant passage stands somewhere among the candidates, seeded."""
    draw = random.Random(seed)
    queries = []
    for number in range(count):
        topic = TOPICS[number % len(TOPICS)]
        place = draw.randrange(candidates)
        passages = tuple(
            Candidate(
                f"d{number}-{row}",
                f"{'about ' + topic if row == place else 'other'} {number}.{row}",
            )
            for row in range(candidates)
        )
        grades = {f"d{number}-{place}": 1}
        queries.append(JudgedQuery(f"q{number}", f"about {topic}", grades, passages))
    return QuerySet("made up", "BM25", tuple(queries), judged=count)


def knowing(name: str = "words") -> Reranker:
    return Reranker.from_scorer(WordOverlap(), name=name)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    corpus = "".join(
        f'{{"_id": "d{i}{j}", "title": "{topic}", "text": "fact {j} on {topic}, number {i}{j}"}}\n'
        for i, topic in enumerate(TOPICS)
        for j in range(3)
    )
    queries = "".join(
        f'{{"_id": "q{i}", "text": "the fact {i % 3} about {topic}"}}\n'
        for i, topic in enumerate(TOPICS)
    )
    judgements = "".join(f"q{i}\td{i}{i % 3}\t1\n" for i in range(len(TOPICS)))
    return Collection.read(
        write_collection(tmp_path / "facts", corpus, queries, judgements), "test"
    )


def test_bm25_finds_what_shares_words_and_nothing_else(collection: Collection) -> None:
    found = bm25(collection, ["q0", "q4"], depth=3)
    assert set(found["q0"]) == {"d00", "d01", "d02"}
    assert set(found["q4"]) == {"d40", "d41", "d42"}
    assert len(bm25(collection, ["q0"], depth=100)["q0"]) < len(collection.documents) + 1


def test_bm25_of_words_that_say_nothing_finds_nothing(tmp_path: Path) -> None:
    corpus = '{"_id": "d", "text": "the cat"}\n{"_id": "e", "text": "dogs"}\n'
    queries = '{"_id": "q", "text": "of the"}\n'
    folder = write_collection(tmp_path / "a", corpus, queries, "q\td\t1\n")
    assert bm25(Collection.read(folder, "test"), ["q"], 5) == {"q": []}
    folder = write_collection(tmp_path / "b", '{"_id": "d", "text": "the"}\n', queries, "q\td\t1\n")
    with pytest.raises(DataError, match="no document has a word"):
        bm25(Collection.read(folder, "test"), ["q"], 5)


def test_nearest_is_the_bi_encoders_own_ranking(
    collection: Collection, bi_encoder: BiEncoder
) -> None:
    ids = list(collection.documents)
    passages = [document.passage for document in collection.documents.values()]
    ranked = bi_encoder.rank(collection.queries["q3"].text, passages, top_k=4)
    found = nearest(collection, ["q1", "q3"], 4, bi_encoder)
    assert found["q3"] == [ids[passage.index] for passage in ranked]


def test_a_run_is_read_by_score_and_its_faults_are_counted(
    collection: Collection, tmp_path: Path
) -> None:
    path = tmp_path / "my.run"
    lines = [
        "q0 Q0 d00 1 0.5 tag",
        "q0 Q0 d01 2 0.9 tag",
        "q0 Q0 gone 3 0.8 tag",
        "q0 Q0 d01 4 0.1 tag",
        "q8 Q0 d00 1 1.0 tag",
        "q1 Q0 d10 1 nan tag",
        "q1 d10 1.0",
    ]
    path.write_text("\n".join(lines))
    found, faults = read_run(path, collection, ["q0", "q1"])
    assert found == {"q0": ["d01", "d00"], "q1": []}
    assert [(fault.what, fault.count) for fault in faults] == [
        ("run's document that is not there", 1),
        ("document that a run ranks twice", 1),
        ("malformed line", 2),
    ]
    queries = QuerySet.from_found(collection, found, first_stage="my", depth=5).without_empty()
    assert [str(fault) for fault in queries.faults] == [
        "query for which nothing was found, counts as 0: 1 ('q1')"
    ]
    with pytest.raises(DataError, match="holds no candidate for any of 1 queries; malformed line"):
        read_run(path, collection, ["q1"])


def test_a_sample_is_drawn_with_its_seed(collection: Collection) -> None:
    assert sample(collection, None, 0) == list(collection.judgements)
    assert sample(collection, 99, 0) == list(collection.judgements)
    drawn = sample(collection, 4, 7)
    assert drawn == sample(collection, 4, 7)
    assert len(set(drawn)) == 4
    assert {tuple(sample(collection, 4, seed)) for seed in range(9)} != {tuple(drawn)}


def test_contenders_are_read() -> None:
    model, bi = Stage("cross-encoder", "m"), Stage("bi-encoder", "embedded")
    read = {spec: parse(spec, "m").plan for spec in PLANS}
    assert read["cross-encoder"] == model
    assert read["cross-encoder:a/b"] == Stage("cross-encoder", "a/b")
    assert read["http://host:8000/x"] == Stage("server", "http://host:8000/x")
    assert read["cascade"] == CascadeOf(bi, model, 20)
    assert read["cascade:7:bi-encoder:b+https://h"] == CascadeOf(
        Stage("bi-encoder", "b"), Stage("server", "https://h"), 7
    )
    assert read["rrf"] == FusionOf(((bi, 1.0), (model, 1.0)), "reciprocal", 1.0)
    assert read["rrf:first-stage+cross-encoder"] == FusionOf(((model, 1.0),), "reciprocal", 1.0)
    assert read["weighted:bi-encoder=0.3+cross-encoder:a/b=2"] == FusionOf(
        ((bi, 0.3), (Stage("cross-encoder", "a/b"), 2.0)), "weighted", 0.0
    )


PLANS = {
    "cross-encoder": "Reranker('m')",
    "cross-encoder:a/b": "Reranker('a/b')",
    "http://host:8000/x": (
        "Reranker.from_scorer(RemoteScorer('http://host:8000/x'), name='http://host:8000/x')"
    ),
    "cascade": "Cascade(BiEncoder(), Reranker('m'), candidates=20)",
    "cascade:7:bi-encoder:b+https://h": (
        "Cascade(BiEncoder('b'), Reranker.from_scorer(RemoteScorer('https://h'),"
        " name='https://h'), candidates=7)"
    ),
    "rrf": "Fusion([BiEncoder(), Reranker('m')], input_weight=1)",
    "rrf:first-stage+cross-encoder": "Fusion([Reranker('m')], input_weight=1)",
    "weighted:bi-encoder=0.3+cross-encoder:a/b=2": (
        "Fusion([BiEncoder(), Reranker('a/b')], method=\"weighted\", weights=[0.3, 2])"
    ),
}


def test_a_contender_is_told_as_python_and_in_words() -> None:
    for spec, expression in PLANS.items():
        contender = parse(spec, "m")
        assert as_python(contender) == expression
        for name in imports(contender).removeprefix("from gpurerank import ").split(", "):
            assert name in expression
        assert described(contender)


NO_CONTENDERS = (
    "",
    "bm25",
    "cascade:0",
    "cascade:x",
    "cascade:5:nothing",
    "rrf:first-stage",
    "rrf:cross-encoder",
    "weighted:",
    "weighted:bi-encoder=1",
    "weighted:bi-encoder=1+first-stage=1",
    "weighted:bi-encoder=0+cross-encoder=1",
    "weighted:bi-encoder=1+cross-encoder=nan",
    "ftp://host",
)


def test_a_contender_that_is_none_is_told_the_forms() -> None:
    for spec in NO_CONTENDERS:
        with pytest.raises(InputError, match=r"it must be bi-encoder\[:MODEL\]"):
            parse(spec, "m")


def test_a_bi_encoder_first_stage_leaves_nothing_to_a_bi_encoder() -> None:
    assert default_specs(dense=False) == ["bi-encoder", "cross-encoder", "cascade:20", "rrf"]
    assert not any("bi-encoder" in spec or "cascade" in spec for spec in default_specs(dense=True))


def test_measures_are_those_of_ir_measures_and_ties_keep_their_order() -> None:
    queries = query_set(6).queries
    rankings = [[c.id for c in query.candidates] for query in queries]
    found = Evaluator(queries, [5]).measure(rankings, 5)
    qrels = {query.id: dict(query.grades) for query in queries}
    run = {
        q.id: {i: 1.0 / (p + 1) for p, i in enumerate(r)}
        for q, r in zip(queries, rankings, strict=True)
    }
    names = ["nDCG@10", "RR@10", "R@5", "Success@1", "Success@5"]
    assert set(found) == set(names)
    by_hand = ir_measures.calc_aggregate([ir_measures.parse_measure(n) for n in names], qrels, run)
    for name in names:
        assert np.mean(found[name]) == pytest.approx(by_hand[ir_measures.parse_measure(name)])
    places = [
        next(p for p, i in enumerate(r, 1) if i in q.grades)
        for q, r in zip(queries, rankings, strict=True)
    ]
    assert found["RR@10"] == pytest.approx([1 / place for place in places])


def test_parts_of_a_document_count_once() -> None:
    assert distinct(["a", "b", "a", "c", "b"]) == ["a", "b", "c"]
    parts = tuple(Candidate(i, t) for i, t in (("x", "1"), ("a", "2"), ("a", "3"), ("b", "4")))
    query = JudgedQuery("q", "?", {"a": 1, "b": 2}, parts)
    assert perfect(query, 4) == ["b", "a", "x"]
    assert perfect(query, 3) == ["a", "x"]
    values = Evaluator([query], [4]).measure([distinct([c.id for c in parts])], 4)
    assert values["RR@10"] == [0.5]
    assert values["R@4"] == [1.0]


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


class Listwise:
    """A Ranker whose ranking of a passage depends on the others: the second longest wins."""

    model_name = "listwise"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def rank(self, query: str, passages: Sequence[str], *_: object) -> list[RankedPassage]:
        self.asked.append(len(passages))
        order = sorted(range(len(passages)), key=lambda row: -len(passages[row]))
        order[:2] = reversed(order[:2])
        return [
            RankedPassage(row, passages[row], 0.0, 0.0, place, None, False, "l", row + 1)
            for place, row in enumerate(order, 1)
        ]

    async def arank(self, query: str, passages: Sequence[str], *_: object) -> list[RankedPassage]:
        return self.rank(query, passages)


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


def point(name: str, values: Sequence[float], ms: float | None, verdict: int = 1) -> Point:
    mean = float(np.mean(values))
    against = Comparison(
        mean if verdict >= 0 else -mean, 0.0, 1.0, 0.5 if not verdict else 0.001, 1, 1, 1
    )
    quality = Interval(mean, mean, mean)
    latency = None if ms is None else Timing([ms])
    return Point(name, 10, {MAIN: list(values)}, quality, against, latency)


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


def test_the_fastest_within_a_standard_error_is_chosen() -> None:
    best = point("best", [1.0, 0.9, 0.8, 0.7], 100.0)
    near = point("near", [0.9, 1.0, 0.8, 0.68], 20.0)
    alike = point("alike", [0.95, 0.95, 0.8, 0.69], 21.0)
    worse = point("worse", [0.5, 0.5, 0.4, 0.3], 5.0)
    unsure = point("unsure", [1.0, 1.0, 1.0, 1.0], 1.0, verdict=0)
    assert choose([best, near, worse, unsure]) == (near, best)
    assert choose([best, near, alike, worse]) == (alike, best)
    assert choose([worse, best]) == (best, best)
    assert choose([point("untimed", [1.0, 0.5], None)]) is not None
    assert choose([unsure]) is None


def test_the_frontier_rises_from_the_first_stage() -> None:
    points = [
        point("slow", [0.9], 100.0),
        point("fast", [0.6], 5.0),
        point("dominated", [0.55], 50.0),
        point("poor", [0.3], 1.0),
        point("untimed", [1.0], None),
    ]
    assert [p.contender for p in efficient(points, first=0.4)] == ["fast", "slow"]


class Opposite(WordOverlap):
    """Knows the answer and says the contrary."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [1.0 - score for score in super().score_pairs(pairs)]


def test_advice_says_what_the_data_says() -> None:
    good = evaluate(query_set(60), {"mine": knowing()}, EvalOptions(depth=8, depths=(4,)))
    assert good.advice.verdict == 1
    assert good.advice.headline.startswith("Rerank with mine on 8 candidates: nDCG@10 +0.")
    assert good.recommended is good.at("mine", 8)
    assert good.examples
    assert all(each.value_after > each.value_before for each in good.examples)
    assert good.examples[0].after[0].grade == 1
    assert good.examples[0].after[0].other_rank == 8
    opposite = Reranker.from_scorer(Opposite(), name="opposite")
    bad = evaluate(query_set(60), {"mine": opposite}, EvalOptions(depth=8))
    assert bad.advice.verdict == -1
    assert bad.advice.headline.startswith("Keep BM25 alone")
    assert all(each.value_after < each.value_before for each in bad.examples)
    few = evaluate(query_set(3), {"mine": knowing()}, EvalOptions(depth=8))
    assert few.advice.verdict == 0
    assert "cannot tell" in few.advice.headline
    assert any("3 queries are few" in doubt for doubt in few.advice.doubts)
