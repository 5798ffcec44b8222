"""The command line as a person uses it: real processes, real output, one-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from gpurerank.demo.corpus import read_folder, read_standard_library, split_text
from gpurerank.errors import DataError
from tests.conftest import InProcess
from tests.time_limits import HANG_S

COMMAND = [sys.executable, "-m", "gpurerank.cli"]


def gpurerank(
    *arguments: str, stdin: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        env={**os.environ, "COLUMNS": "120", **environment},
    )


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    (root / "sub").mkdir(parents=True)
    (root / "run.md").write_text("# Running\n\nsubprocess.run executes a command.")
    (root / "sub" / "merge.txt").write_text("heapq.merge merges several sorted lists into one.")
    (root / "broken.md").write_bytes(b"\xff\xfe\x00bad")
    (root / "data.bin").write_bytes(b"ignored")
    return root


def test_rank_reads_arguments_and_prints_a_table() -> None:
    result = gpurerank("rank", "run a command", "a brown fox", "subprocess.run executes a command")
    assert result.returncode == 0, result.stderr
    first = next(line for line in result.stdout.splitlines() if "subprocess.run" in line)
    assert first.split("│")[1].strip() == "1"


def test_rank_reads_a_pipe_and_writes_json_lines(tmp_path: Path, here: InProcess) -> None:
    lines = 'a brown\u2028 fox \u0085\n\n{"text": "subprocess.run executes a command"}\n{not json\n'
    result = gpurerank("rank", "run a command", "--json", "--top-k", "2", stdin=lines)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == 2
    assert rows[0]["passage"] == "subprocess.run executes a command"
    assert (rows[0]["rank"], rows[0]["index"]) == (1, 1)
    (tmp_path / "p.txt").write_text(lines)
    _, again, _ = here("rank", "run a command", "--json", "-k", "2", "-f", str(tmp_path / "p.txt"))
    assert [json.loads(line)["passage"] for line in again.splitlines()] == [
        row["passage"] for row in rows
    ]


def test_demo_indexes_a_folder_once_and_follows_changes(docs: Path, tmp_path: Path) -> None:
    arguments = ("demo", "--docs", str(docs), "--index", str(tmp_path / "index"), "-q", "run it")
    first = gpurerank(*arguments)
    assert first.returncode == 0, first.stderr
    assert "2 embedded now, 0 embedded before" in " ".join(first.stdout.split())
    assert "broken.md" in first.stderr
    assert "rerank 2" in first.stdout
    (docs / "new.md").write_text("json reads and writes data")
    (docs / "sub" / "merge.txt").unlink()
    second = gpurerank(*arguments)
    output = " ".join(second.stdout.split())
    assert "1 embedded now, 1 embedded before, 1 removed" in output
    assert "merge.txt" not in second.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rank", "", "a"], "the query is blank"),
        (["rank", "q", "-f", "/no/such/file"], "cannot be read"),
        (["rank", "q", "a", "-f", "x"], "give one of both"),
        (["rank", "q"], "holds no passage"),
        (["rank", "q", __file__], "give it with --file"),
        (["rank", "q", "a", "--model", "nobody/has-this"], "'embedded'"),
        (["rank", "q", "a", "--device", "cuda:9"], "cuda:9"),
        (["rank", "q", "a", "--dtype", "int3"], "dtype is 'int3'"),
        (["demo", "--docs", "/no/such/folder"], "is not a folder"),
        (["demo", "-q", " "], "--query is blank"),
    ],
)
def test_errors_are_one_line(arguments: list[str], said: str, here: InProcess) -> None:
    status, _, told = here(*arguments)
    assert status == 1
    assert said in told
    assert len(told.strip().splitlines()) == 1
    assert "Traceback" not in told


def test_a_wrong_option_shows_the_usage(here: InProcess) -> None:
    status, _, told = here("rank", "q", "a", "--no-such-option")
    assert status == 2
    assert "No such option" in told
    assert "Traceback" not in told


def test_environment_gives_defaults(here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURERANK_MODEL", "nobody/has-this")
    _, _, told = here("rank", "q", "a")
    assert "nobody/has-this" in told


def test_doctor_reports_and_fails_where_something_is_wrong(here: InProcess) -> None:
    good = gpurerank("doctor")
    assert good.returncode == 0, good.stdout
    assert "packed attention" in good.stdout
    assert "torch" in good.stdout
    status, output, _ = here("doctor", "--model", "nobody/has-this")
    assert status == 1
    assert "error" in output.split()


def test_a_damaged_weight_file_is_named(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
import shutil, gpurerank
from gpurerank.models import embedded
copy = Path({str(tmp_path)!r}) / embedded.DELTA_FILE.name
data = bytearray(embedded.DELTA_FILE.read_bytes()); data[len(data) // 2] ^= 1
copy.write_bytes(data)
copy.with_suffix(".sha256").write_text(embedded.delta_sha256())
embedded.DELTA_FILE = copy
try:
    gpurerank.Reranker()
except gpurerank.WeightsError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG_S, check=True
    )
    assert "the file is damaged or was replaced" in result.stdout


def test_standard_library_gives_named_docstrings() -> None:
    passages = {p.source: p.text for p in read_standard_library()}
    assert 4_000 < len(passages) < 6_500
    for name in ("subprocess.run", "difflib.unified_diff", "heapq.merge", "json", "pathlib.Path"):
        assert passages[name].startswith(name)
    assert not any(name.startswith(("test.", "idlelib")) for name in passages)
    assert min(len(text.split("\n", 1)[1]) for text in passages.values()) > 30


def test_folder_is_split_and_read_in_order(docs: Path) -> None:
    passages, skipped = read_folder(docs)
    assert [p.source for p in passages] == ["run.md#1", "sub/merge.txt#1"]
    assert len(skipped) == 1
    assert skipped[0].startswith("broken.md: ")


def test_split_keeps_every_word_and_headings_with_their_text() -> None:
    text = "\n\n".join(f"## Part {i}\n\n{'word ' * 120}end{i}" for i in range(6))
    parts = split_text(text)
    assert " ".join(" ".join(parts).split()) == " ".join(text.split())
    assert all(part.startswith("## Part") for part in parts)
    assert split_text(" \n\n ") == []


def test_split_leaves_no_passage_too_long() -> None:
    for text in ("word " * 5_000, "line of a log\n" * 2_000, "高" * 9_000, "a\n \nb" * 900):
        parts = split_text(text)
        assert max(map(len, parts)) <= 1_100
        assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_folder_with_nothing_to_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no readable"):
        read_folder(tmp_path)
    (tmp_path / "bad.txt").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match=r"not readable: bad\.txt"):
        read_folder(tmp_path)


def test_the_version_is_printed_without_torch() -> None:
    result = gpurerank("--version")
    assert (result.returncode, result.stdout) == (0, f"gpurerank {version('gpurerank')}\n")
    script = (
        "import sys; sys.argv = ['gpurerank', '--version']\n"
        "from gpurerank import cli\n"
        "try: cli.main()\n"
        "finally: print({'torch', 'transformers'} & set(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG_S
    )
    assert loaded.stdout.splitlines()[1] == "set()"
