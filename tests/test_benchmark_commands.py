from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.manual_collections import write_collection
from gpurerank.errors import InputError
from tests.time_limits import HANG_S

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile"]
PAGES += [ROOT / "benchmarks/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PREFIX = "python -m benchmarks "


def documented_commands() -> Iterator[tuple[str, list[str]]]:
    """Each command line of the pages that runs this program, and its arguments."""
    for page in PAGES:
        for text in page.read_text(encoding="utf-8").split(PREFIX)[1:]:
            # Inline code ends with a backtick and may continue on the next line.
            is_inline = "`" in text and "\n\n" not in text.split("`")[0]
            line = text.split("`")[0] if is_inline else text.splitlines()[0]
            arguments = shlex.split(line.splitlines()[0], comments=True)
            if arguments != ["--help"]:
                yield f"{page.name}: {line}", arguments


def test_documented_commands_exist_with_their_options() -> None:
    group: Any = typer.main.get_command(app)
    lines = list(documented_commands())
    assert {arguments[0] for _, arguments in lines} == set(group.commands)
    for line, arguments in lines:
        command = group.commands[arguments[0]]
        context = command.context_class(command, info_name=arguments[0])
        try:
            command.make_parser(context).parse_args(args=arguments[1:])
        except Exception as error:
            pytest.fail(f"{line}: {error}")


def test_wrong_options_of_a_benchmark_are_named() -> None:
    result = CliRunner().invoke(app, ["concurrency", "--callers", "0"])
    assert isinstance(result.exception, InputError)
    assert "--callers has '0'; it takes numbers from 1 to 1,024" in str(result.exception)


def test_weights_without_a_trained_model_are_refused(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "ship-weights", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        cwd=ROOT,
    )
    assert result.returncode == 1
    assert "has no model that was trained with --blend-weight" in " ".join(result.stderr.split())


def test_a_collection_keeps_the_first_query_of_each_passage(tmp_path: Path) -> None:
    passage = "one two three four five six seven eight"
    pairs = [
        ("how is it done", passage),
        ("what else is it", f"{passage}\n"),
        ("too short", f"other {passage}"),
        ("is it long enough", "it is not"),
        ("which one is last", f"last {passage}"),
    ]
    assert write_collection(tmp_path, pairs) == 2
    queries = (tmp_path / "queries.jsonl").read_text()
    assert queries == (
        '{"_id": "q0", "text": "how is it done"}\n{"_id": "q1", "text": "which one is last"}\n'
    )
    assert (tmp_path / "qrels/test.tsv").read_text() == (
        "query-id\tcorpus-id\tscore\nq0\tp0\t1\nq1\tp1\t1\n"
    )
