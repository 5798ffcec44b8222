"""``gpurerank eval`` as a person uses it: on a folder, with mistakes, and with bad data."""

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


def test_a_folder_alone_is_enough(
    folder: Path, tmp_path: Path, here: InProcess, embedded: Reranker, bi_encoder: BiEncoder
) -> None:
    status, told, progress = here("eval", str(folder), "-o", str(tmp_path / "out"))
    assert status == 0, progress
    for contender in ("BM25", "bi-encoder", "cross-encoder", "cascade:20", "rrf"):
        assert contender in told
    assert "cannot tell" in told
    assert "bi-encoder embedded" in progress
    found, page = written(tmp_path / "out")
    assert found["first_stage"] == "BM25"
    assert found["settings"]["language"] == "english"
    assert "passages embedded ahead" in told
    assert "<h1>This data cannot tell" in page
    # By hand: the same candidates, the public class, and ir-measures.
    qrels = {i: {answer: 1} for i, (_, answer) in QUESTIONS.items()}
    run = {}
    for identifier, (question, _) in QUESTIONS.items():
        ids = candidates(folder, identifier)
        ranked = embedded.rank(question, [FACTS[i] for i in ids])
        run[identifier] = {ids[p.index]: -float(p.rank) for p in ranked}
    expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)
    points = {(p["contender"], p["depth"]): p for p in found["points"]}  # type: ignore[attr-defined]
    (depth,) = {depth for _, depth in points}
    mean = points["cross-encoder", depth]["quality"]["mean"]
    assert mean == pytest.approx(expected[ir_measures.nDCG @ 10])


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def candidates(folder: Path, query_id: str) -> list[str]:
    from gpurerank.collection import Collection
    from gpurerank.evaluation.first_stage import bm25

    return bm25(Collection.read(folder, "test"), [query_id], 50)[query_id]


def test_what_is_asked_for_is_done(
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
    asked = (
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
    status, told, progress = here(*asked)
    assert status == 0, progress
    assert "3 queries of 4, drawn at random" in told
    assert "embedding documents" in progress
    found, _ = written(output)
    assert (found["first_stage"], found["depths"]) == ("bi-encoder", [2, 4])
    assert "language" not in found["settings"]
    assert [each["name"] for each in found["contenders"]] == ["cross-encoder", "cascade:2"]  # type: ignore[attr-defined]
    again = here(*asked)
    assert again[0] == 0
    assert len(list(output.glob("*.html"))) in (1, 2), "the same second writes the same file"


def test_candidates_come_from_a_run_and_faults_are_told(
    folder: Path, tmp_path: Path, here: InProcess, embedded: Reranker
) -> None:
    append(folder / "qrels" / "test.tsv", "q1\tgone\t1\nq9\trun\t1\nq4\n")
    append(folder / "corpus.jsonl", '{"_id": "run", "text": "again"}\n{"_id": "new"\n')
    run = tmp_path / "mine.run"
    run.write_text(
        "q1 Q0 fox 1 2.0 t\nq1 Q0 run 2 1.0 t\nq2 Q0 merge 1 1.0 t\nq2 Q0 nowhere 2 1 t\n"
    )
    output = tmp_path / "out"
    status, told, progress = here(
        "eval", str(folder), "--run", str(run), "-o", str(output), "-c", "cross-encoder"
    )
    assert status == 0, progress
    for said in (
        "the data has faults",
        "document id that stands twice",
        "judgement of a document that is not there",
        "judgement for a query that is not there",
        "malformed line",
        "run's document that is not there",
        "query for which nothing was found",
    ):
        assert said in " ".join(progress.split()), said
    assert "mine.run" in told
    found, page = written(output)
    order = [query["id"] for query in found["queries"]]  # type: ignore[attr-defined]
    for point in found["points"]:  # type: ignore[attr-defined]
        values = dict(zip(order, point["values"]["Success@1"], strict=True))
        assert values == {"q1": 1.0, "q2": 1.0, "q3": 0.0, "q4": 0.0}
    assert "The data has faults" in page


def test_mistakes_are_one_line(folder: Path, tmp_path: Path, here: InProcess) -> None:
    (tmp_path / "file").write_text("")
    for arguments, said in (
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
        status, told, progress = here(
            "eval", *arguments, *([] if "-o" in arguments else ["-o", str(tmp_path / "out")])
        )
        error = progress.strip().splitlines()[-1]
        assert status == 1, arguments
        assert said in error
        assert error.startswith("gpurerank: ")
        assert not told
        assert "Traceback" not in progress


def test_ctrl_c_before_anything_is_finished_says_so(
    folder: Path, tmp_path: Path, here: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpurerank.evaluation import command

    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "bm25", pressed)
    status, told, progress = here("eval", str(folder), "-o", str(tmp_path / "out"))
    assert status == 130
    assert "interrupted before the first queries were finished" in progress
    assert not told
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
