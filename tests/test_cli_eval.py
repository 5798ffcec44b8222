"""``gpurerank eval``: on a folder, with invalid options, and with problems in the data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ir_measures
import pytest

from gpurerank import BiEncoder, Reranker
from tests.conftest import InProcess
from tests.test_collection import write_collection
from tests.time_limits import HANG_S

FACTS = {
    "run": "subprocess.run executes a command and returns its output",
    "merge": "heapq.merge merges several sorted inputs into one",
    "diff": "difflib compares two files and shows the differences",
    "fox": "the quick brown fox jumps over the lazy dog near a command post",
    "walk": "pathlib walks through folders and files",
    "json": "json writes and reads data from files",
}
QUESTIONS = {
    "q1": ("run a command and capture the output", "run"),
    "q2": ("merge sorted lists into one", "merge"),
    "q3": ("compare two files", "diff"),
    "q4": ("a fox that jumps", "fox"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    corpus = "".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in FACTS.items())
    queries = "".join(json.dumps({"_id": i, "text": t}) + "\n" for i, (t, _) in QUESTIONS.items())
    judgements = "".join(f"{i}\t{answer}\t1\n" for i, (_, answer) in QUESTIONS.items())
    return write_collection(tmp_path / "facts", corpus, queries, judgements)


def written(output: Path) -> tuple[dict[str, object], str]:
    (report,), (page,) = output.glob("*.json"), output.glob("*.html")
    return json.loads(report.read_text()), page.read_text()


def test_a_folder_is_the_only_argument_needed(
    folder: Path, tmp_path: Path, here: InProcess, embedded: Reranker, bi_encoder: BiEncoder
) -> None:
    status, tables, progress = here("eval", str(folder), "-o", str(tmp_path / "out"))
    assert status == 0, progress
    for contender in ("BM25", "bi-encoder", "cross-encoder", "cascade:20", "rrf"):
        assert contender in tables
    assert "cannot show" in tables
    assert "bi-encoder embedded" in progress
    evaluation, page = written(tmp_path / "out")
    assert evaluation["first_stage"] == "BM25"
    assert evaluation["settings"]["language"] == "english"
    assert "passages embedded ahead" in tables
    assert "<h1>This data cannot show" in page
    # The same candidates, ranked by the public class and measured by ir-measures.
    qrels = {i: {answer: 1} for i, (_, answer) in QUESTIONS.items()}
    run = {}
    for identifier, (question, _) in QUESTIONS.items():
        ids = candidates(folder, identifier)
        ranked = embedded.rank(question, [FACTS[i] for i in ids])
        run[identifier] = {ids[p.index]: -float(p.rank) for p in ranked}
    expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)
    points = {(p["contender"], p["depth"]): p for p in evaluation["points"]}  # type: ignore[attr-defined]
    (depth,) = {depth for _, depth in points}
    mean = points["cross-encoder", depth]["quality"]["mean"]
    assert mean == pytest.approx(expected[ir_measures.nDCG @ 10])


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def candidates(folder: Path, query_id: str) -> list[str]:
    from gpurerank.collection import Collection
    from gpurerank.evaluation.first_stage import search_bm25

    return search_bm25(Collection.read(folder, "test"), [query_id], 50)[query_id]


def test_options_select_the_first_stage_depths_contenders_and_sample(
    folder: Path, tmp_path: Path, here: InProcess, embedded: Reranker, bi_encoder: BiEncoder
) -> None:
    arguments = (
        "eval",
        str(folder),
        "--first-stage",
        "bi-encoder",
        "--depth",
        "4",
        "--depths",
        "2",
    )
    output = tmp_path / "out"
    command = (
        *arguments,
        "-o",
        str(output),
        "-c",
        "cross-encoder",
        "-c",
        "cascade:2",
        "--queries",
        "3",
    )
    status, tables, progress = here(*command)
    assert status == 0, progress
    assert "3 queries of 4, drawn at random" in tables
    assert "embedding documents" in progress
    evaluation, _ = written(output)
    assert (evaluation["first_stage"], evaluation["depths"]) == ("bi-encoder", [2, 4])
    assert "language" not in evaluation["settings"]
    assert [record["name"] for record in evaluation["contenders"]] == ["cross-encoder", "cascade:2"]  # type: ignore[attr-defined]
    again = here(*command)
    assert again[0] == 0
    assert len(list(output.glob("*.html"))) in (1, 2), "the same second writes the same file"


def test_candidates_come_from_a_run_and_problems_are_reported(
    folder: Path, tmp_path: Path, here: InProcess, embedded: Reranker
) -> None:
    append(folder / "qrels" / "test.tsv", "q1\tgone\t1\nq9\trun\t1\nq4\n")
    append(folder / "corpus.jsonl", '{"_id": "run", "text": "again"}\n{"_id": "new"\n')
    run = tmp_path / "mine.run"
    run.write_text(
        "q1 Q0 fox 1 2.0 t\nq1 Q0 run 2 1.0 t\nq2 Q0 merge 1 1.0 t\nq2 Q0 nowhere 2 1 t\n"
    )
    output = tmp_path / "out"
    status, tables, progress = here(
        "eval", str(folder), "--run", str(run), "-o", str(output), "-c", "cross-encoder"
    )
    assert status == 0, progress
    for problem in (
        "the data has problems",
        "document id that stands twice",
        "judgement of a document that is not there",
        "judgement for a query that is not there",
        "malformed line",
        "document of the run that is not in the corpus",
        "query without a candidate",
    ):
        assert problem in " ".join(progress.split()), problem
    assert "mine.run" in tables
    evaluation, page = written(output)
    order = [query["id"] for query in evaluation["queries"]]  # type: ignore[attr-defined]
    for point in evaluation["points"]:  # type: ignore[attr-defined]
        values = dict(zip(order, point["values"]["Success@1"], strict=True))
        assert values == {"q1": 1.0, "q2": 1.0, "q3": 0.0, "q4": 0.0}
    assert "Problems in the data" in page


def test_an_invalid_option_is_reported_in_one_line(
    folder: Path, tmp_path: Path, here: InProcess
) -> None:
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["/no/such/folder"], "corpus.jsonl: cannot be read"),
        ([str(folder), "--split", "dev"], "no such split; there is test"),
        ([str(folder), "--first-stage", "solr"], "--first-stage is 'solr'"),
        ([str(folder), "--language", "klingon"], "language is 'klingon'; it must be one of"),
        ([str(folder), "--run", "/no/run"], "/no/run: cannot be read"),
        ([str(folder), "--run", "x", "--first-stage", "bi-encoder"], "leave --first-stage out"),
        ([str(folder), "-c", "reranker"], "contender 'reranker'"),
        ([str(folder), "--depths", "10,x"], "--depths is '10,x'"),
        ([str(folder), "--depths", "0"], "a depth is 0"),
        ([str(folder), "-c", "cross-encoder:nobody/has-this"], "nobody/has-this"),
        ([str(folder), "--device", "cuda:9"], "cuda:9"),
        ([str(folder), "-o", str(tmp_path / "file" / "x")], "the output folder"),
    ):
        status, tables, progress = here(
            "eval", *arguments, *([] if "-o" in arguments else ["-o", str(tmp_path / "out")])
        )
        error = progress.strip().splitlines()[-1]
        assert status == 1, arguments
        assert message in error
        assert error.startswith("gpurerank: ")
        assert not tables
        assert "Traceback" not in progress


def test_ctrl_c_before_any_result_writes_no_report(
    folder: Path, tmp_path: Path, here: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpurerank.evaluation import folder_evaluation

    def press_ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_evaluation, "search_bm25", press_ctrl_c)
    status, tables, progress = here("eval", str(folder), "-o", str(tmp_path / "out"))
    assert status == 130
    assert "interrupted before the first queries were finished" in progress
    assert not tables
    assert not list((tmp_path / "out").iterdir())


def test_a_missing_extra_is_named_in_one_line(folder: Path) -> None:
    script = f"""
import sys
sys.modules["ir_measures"] = None  # as if it were not installed
sys.argv = ["gpurerank", "eval", {str(folder)!r}]
from gpurerank.cli import main
main()
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG_S
    )
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line == "gpurerank: ir_measures is not installed; pip install 'gpurerank[eval]'"
