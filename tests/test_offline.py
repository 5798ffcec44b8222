"""Scoring of files in this process: reading, writing, and continuing a job."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpurerank import DataError, InputError, Reranker, RerankerOptions
from gpurerank.errors import DeviceError, ScoringError
from gpurerank.offline.input_files import InputFile, Part, cut_into_parts, list_input_files
from gpurerank.offline.job_runner import JobProgress, PreparedJob, score_files
from gpurerank.offline.output_folder import OutputFolder
from gpurerank.offline.row_reader import read_schema, read_slices
from gpurerank.offline.row_scoring import Counts
from gpurerank.offline.score_job import Columns, ScoreJob
from tests.conftest import InProcess

Rows = list[dict[str, Any]]
QUERY = "how do I compare two files?"
ROWS: Rows = [
    {"id": n, "query": f"{QUERY} {n % 7}", "passage": f"passage {n} about {t}"}
    for n, t in enumerate(("files", "bread", "diffs", "bees") * 15)
]


@pytest.fixture
def job(tmp_path: Path, tiny: str) -> ScoreJob:
    options = RerankerOptions(model=tiny, device="cpu", dtype="float32", max_length=64)
    return ScoreJob(
        inputs=[str(tmp_path / "in")], output=str(tmp_path / "out"), model=options, rows_per_part=16
    )


def write_input(job: ScoreJob, rows: Rows, name: str = "rows.parquet", **options: Any) -> None:
    """Writes rows as the input of a job."""
    path = Path(job.inputs[0]) / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, **options)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def read_output(job: ScoreJob) -> Rows:
    """The rows that a job has written."""
    rows: Rows = pq.read_table(job.output).to_pylist()
    return rows


@pytest.fixture
def expected(job: ScoreJob) -> list[float]:
    with Reranker.from_options(job.model) as reranker:
        return reranker.score_pairs([(row["query"], row["passage"]) for row in ROWS])


class Stub:
    """An executor over a scorer that stands in for the model."""

    def __init__(self, score: Callable[[str, str], float]) -> None:
        self._score = score
        self.parts: list[int] = []

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [self._score(*pair) for pair in pairs]

    def __call__(self, prepared: PreparedJob, parts: Sequence[Any]) -> Iterator[tuple[Any, Counts]]:
        for part in parts:
            self.parts.append(part.number)
            yield part, prepared.score_part(part, self)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_every_row_gets_the_score_it_has_in_a_call(
    job: ScoreJob, expected: list[float], name: str
) -> None:
    write_input(job, ROWS, name, **({"row_group_size": 13} if name.endswith("parquet") else {}))
    report = score_files(job)
    rows = read_output(job)
    assert [row["id"] for row in rows] == list(range(len(ROWS)))
    np.testing.assert_allclose([row["score"] for row in rows], expected, rtol=0, atol=1e-5)
    for row in rows:
        assert row["logit"] == pytest.approx(math.log(row["score"] / (1 - row["score"])))
        assert row["error"] is None
        assert row["passage"] == ROWS[row["id"]]["passage"]
    assert report.counts == report.new == Counts(len(ROWS), 0, len(ROWS))


def test_candidates_get_a_list_of_scores(job: ScoreJob, expected: list[float]) -> None:
    lists = [ROWS[n : n + 1] for n in range(40)] + [[]]
    write_input(
        job,
        [
            {"query": rows[0]["query"] if rows else "q", "candidates": [r["passage"] for r in rows]}
            for rows in lists
        ],
        "lists.jsonl",
    )
    score_files(job)
    rows = read_output(job)
    assert [len(row["scores"]) for row in rows] == [len(rows) for rows in lists]
    scores = [score for row in rows for score in row["scores"]]
    np.testing.assert_allclose(scores, expected[:40], rtol=0, atol=1e-5)


@pytest.mark.parametrize("step", [1, 7, 64, 100_000])
def test_parts_of_json_lines_share_no_line_and_leave_none_out(job: ScoreJob, step: int) -> None:
    write_input(job, ROWS, "rows.jsonl")
    (file,) = list_input_files(job.inputs)
    assert sum(part.stop - part.start for part in cut_into_parts([file], step)) == file.size
    score_files(replace(job, rows_per_part=step), executor=Stub(lambda *_: 0.5))
    assert sorted(row["id"] for row in read_output(job)) == list(range(len(ROWS)))


@pytest.mark.parametrize("start", range(90, 135, 5))
def test_a_line_belongs_to_the_part_that_it_begins_in(job: ScoreJob, start: int) -> None:
    write_input(job, ROWS[:6], "rows.jsonl")
    (file,) = list_input_files(job.inputs)
    schema = read_schema([InputFile(file.path, file.size, None)], Columns())
    parts = Part(0, file.path, 0, start), Part(1, file.path, start, file.size)
    tables = [table for part in parts for table, _ in read_slices(part, schema)]
    assert [n for table in tables for n in table["id"].to_pylist()] == list(range(6))


def test_a_bad_row_is_written_with_its_error_and_stops_no_other(job: ScoreJob) -> None:
    bad: Rows = [
        {"id": 100, "query": " ", "passage": "x"},
        {"id": 101, "query": "q", "passage": None},
        {"id": 102, "query": None, "passage": "x"},
        {"id": 103, "query": "q", "passage": 7},
    ]
    write_input(job, [*ROWS, *bad], "rows.jsonl")
    path = Path(job.inputs[0]) / "rows.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id": 104,\n[1]\n\xff\n\n' + b'{"query": "\\ud800"}\n')
    report = score_files(job)
    rows = read_output(job)
    errors = [row["error"] for row in rows if row["error"]]
    assert [row["error"] is None for row in rows[: len(ROWS)]] == [True] * len(ROWS)
    assert report.counts == Counts(len(ROWS) + 8, 8, len(ROWS))
    for error, message in zip(
        errors,
        [
            "blank",
            "passage is null",
            "NoneType",
            "passage is int",
            "not JSON",
            "list",
            "UTF-8",
            "query",
        ],
        strict=True,
    ):
        assert message in error
    assert all(row["score"] is None for row in rows if row["error"])


def test_only_the_row_that_fails_gets_an_error(job: ScoreJob) -> None:
    def score(_: str, passage: str) -> float:
        if passage == ROWS[21]["passage"]:
            raise ScoringError("this one fails")
        return 0.5

    write_input(job, ROWS)
    score_files(job, executor=Stub(score))
    failed = [row for row in read_output(job) if row["error"]]
    assert [(row["id"], row["error"]) for row in failed] == [(21, "ScoringError: this one fails")]


def test_a_lost_device_ends_the_job_and_the_next_run_continues(job: ScoreJob) -> None:
    lost = True

    def score(_: str, passage: str) -> float:
        if lost and passage == ROWS[40]["passage"]:
            raise DeviceError("gone")
        return 0.5

    write_input(job, ROWS)
    first = Stub(score)
    with pytest.raises(DeviceError):
        score_files(job, executor=first)
    assert not [path.name for path in Path(job.output).glob(".*")]
    lost, seen = False, list[JobProgress]()
    second = Stub(score)
    report = score_files(job, executor=second, on_progress=seen.append)
    assert (first.parts, second.parts) == ([0, 1, 2], [2, 3])
    assert [progress.finished for progress in seen] == [2, 3, 4]
    assert sorted(row["id"] for row in read_output(job)) == list(range(len(ROWS)))
    assert report.new.rows == len(ROWS) - 32
    third = Stub(score)
    score_files(job, executor=third)
    assert third.parts == []


def test_a_half_written_file_is_no_part(job: ScoreJob) -> None:
    write_input(job, ROWS)
    score_files(job, executor=Stub(lambda *_: 0.5))
    whole = Path(job.output) / "part-000001.parquet"
    half = whole.with_name(f".{whole.name}.abc.unfinished")
    whole.rename(half)
    half.write_bytes(half.read_bytes()[:100])
    again = Stub(lambda *_: 0.5)
    score_files(job, executor=again)
    assert again.parts == [1]
    assert not half.exists()


def test_a_part_that_ends_its_process_three_times_ends_the_job(job: ScoreJob) -> None:
    write_input(job, ROWS)
    score_files(job, executor=Stub(lambda *_: 0.5))
    (Path(job.output) / "part-000001.parquet").unlink()

    class Dying(Stub):
        def __call__(self, prepared: PreparedJob, parts: Sequence[Any]) -> Iterator[Any]:
            for life in range(3):
                (Path(job.output) / f".part-000001.parquet.{life}.unfinished").write_bytes(b"half")
            return super().__call__(prepared, parts)

    with pytest.raises(ScoringError, match=r"part-000001\.parquet ended its process 3 times"):
        score_files(job, executor=Dying(lambda *_: 0.5))
    score_files(job, executor=Stub(lambda *_: 0.5))
    assert len(read_output(job)) == len(ROWS)


@pytest.mark.parametrize(
    "change",
    [
        lambda job: replace(job, columns=Columns(drop_text=True)),
        lambda job: replace(job, model=replace(job.model, max_length=32)),
        lambda job: replace(job, rows_per_part=5),
    ],
)
def test_an_output_of_another_job_is_refused(
    job: ScoreJob, change: Callable[[ScoreJob], ScoreJob]
) -> None:
    write_input(job, ROWS)
    score_files(job, executor=Stub(lambda *_: 0.5))
    with pytest.raises(InputError, match="a job with other"):
        score_files(change(job), executor=Stub(lambda *_: 0.5))
    write_input(job, [*ROWS, *ROWS])
    with pytest.raises(InputError, match="a job with other files"):
        score_files(job, executor=Stub(lambda *_: 0.5))


def test_a_folder_with_something_else_is_not_written_to(job: ScoreJob) -> None:
    write_input(job, ROWS)
    Path(job.output).mkdir()
    (Path(job.output) / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        score_files(job)
    with pytest.raises(InputError, match=r"thesis\.txt is a file: give an output folder"):
        score_files(replace(job, output=f"{job.output}/thesis.txt"))


def test_drop_text_and_prefix_change_the_output_columns(job: ScoreJob) -> None:
    rows = [{"q": row["query"], "p": row["passage"], "score": row["id"]} for row in ROWS]
    write_input(job, rows)
    columns = Columns(query="q", passage="p", prefix="tiny_", drop_text=True)
    score_files(replace(job, columns=columns), executor=Stub(lambda *_: 0.25))
    rows = read_output(job)
    assert rows[5] == {
        "score": 5, "tiny_score": 0.25, "tiny_logit": pytest.approx(math.log(1 / 3)),
        "tiny_error": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"question": "q", "passage": "p"}],
            "no column 'query' for the query; its columns are: question, passage",
        ),
        ([{"query": "q"}], "it has neither"),
        ([{"query": "q", "passage": "p", "candidates": ["p"]}], "it has both"),
        ([{"query": "q", "passage": "p", "score": 1}], "already has a column 'score'"),
    ],
)
def test_wrong_columns_are_named(job: ScoreJob, rows: Rows, message: str) -> None:
    write_input(job, rows)
    with pytest.raises(DataError, match=message):
        score_files(job)


def test_a_wrong_input_is_named(job: ScoreJob) -> None:
    with pytest.raises(DataError, match="does not exist"):
        score_files(job)
    folder = Path(job.inputs[0])
    folder.mkdir()
    with pytest.raises(DataError, match=r"has no \.parquet"):
        score_files(job)
    (folder / "a.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="is not a Parquet file"):
        score_files(job)
    (folder / "a.parquet").unlink()
    write_input(job, ROWS, "a.parquet")
    write_input(job, ROWS, "a.jsonl")
    with pytest.raises(DataError, match="both Parquet and JSON lines"):
        score_files(job)
    assert not Path(job.output).exists()


def test_files_that_differ_in_a_column_are_refused_before_any_work(job: ScoreJob) -> None:
    write_input(job, ROWS, "a.parquet")
    write_input(job, [{**row, "id": "x"} for row in ROWS], "b.parquet")
    with pytest.raises(DataError, match="differ in the type of a column"):
        score_files(job)


def test_a_damaged_part_is_named(job: ScoreJob) -> None:
    write_input(job, ROWS)
    score_files(job, executor=Stub(lambda *_: 0.5))
    (Path(job.output) / "part-000000.parquet").write_bytes(b"broken")
    with pytest.raises(DataError, match="delete it"):
        OutputFolder(job.output).finished_parts(cut_into_parts(list_input_files(job.inputs), 16))


def test_the_command_scores_and_continues(job: ScoreJob, here: InProcess, tiny: str) -> None:
    write_input(job, [*ROWS, {"id": 1, "query": "", "passage": "x"}])
    command = ("score", "-i", job.inputs[0], "-o", job.output, "--model", tiny)
    status, out, err = here(*command)
    assert status == 0, err
    assert "61 rows in 1 part in" in out
    assert "1 row could not be scored;" in err
    status, out, _ = here(*command)
    assert "this run 0, earlier runs 61" in out
    status, _, err = here(*command, "--replicas", "2")
    assert status == 1
    assert "add --ray" in err


def test_ctrl_c_says_how_to_continue(job: ScoreJob, tiny: str) -> None:
    write_input(job, ROWS * 400)
    options = ("score", "-i", job.inputs[0], "-o", job.output, "--model", tiny)
    command = [sys.executable, "-m", "gpurerank.cli", *options, "--rows-per-part", "500"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 100
        while not list(Path(job.output).glob("part-*.parquet")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "stopped; the same command continues" in err
    assert not list(Path(job.output).glob(".*"))
    assert 0 < len(list(Path(job.output).glob("part-*.parquet"))) < 48
