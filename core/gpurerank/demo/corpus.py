"""Passages to search: the standard library's docstrings, or a folder of text files."""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpurerank.errors import DataError

LEAST_DOCSTRING = 30
LARGEST_FILE_BYTES = 10 << 20
PASSAGE_CHARACTERS = 1_000
TEXT_SUFFIXES = frozenset({".md", ".markdown", ".txt", ".rst", ".text"})
_LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test"})


@dataclass(frozen=True, slots=True)
class SourcePassage:
    """A passage and where it comes from: a qualified name, or a file and its part."""

    source: str
    text: str

    @property
    def id(self) -> str:
        """The same for the same passage, so that what has not changed is not embedded again."""
        return hashlib.sha256(f"{self.source}\0{self.text}".encode("utf-8", "replace")).hexdigest()


def standard_library(modules: Collection[str] | None = None) -> list[SourcePassage]:
    """Docstrings over 30 characters of public modules, classes and functions.

    Read from the source files of the Python that runs this; nothing is imported.

    Args:
        modules: Top-level names that are read; None for all.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    passages: dict[str, SourcePassage] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if modules is not None and parts[0] not in modules:
            continue
        if _LEFT_OUT.intersection(parts) or any(p[0] == "_" and p != "__init__" for p in parts):
            continue
        try:
            module = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):  # some are meant to be wrong
            continue
        name = ".".join(part for part in parts if part != "__init__")
        for passage in _docstrings(module, name):
            passages.setdefault(passage.source, passage)
    return list(passages.values())


def folder(path: Path) -> tuple[list[SourcePassage], list[str]]:
    """The text and Markdown files below a folder, in passages of about 1,000 characters.

    Returns:
        The passages, and a line for each file that could not be read.

    Raises:
        DataError: There is no such folder, or nothing in it can be read.
    """
    if not path.is_dir():
        raise DataError(f"{path} is no folder; --docs takes a folder of .md or .txt files")
    passages: list[SourcePassage] = []
    skipped: list[str] = []
    for file in sorted(p for p in path.rglob("*") if p.suffix.lower() in TEXT_SUFFIXES):
        if not file.is_file() or any(part.startswith(".") for part in file.relative_to(path).parts):
            continue
        try:
            if file.stat().st_size > LARGEST_FILE_BYTES:
                raise ValueError(f"over {LARGEST_FILE_BYTES >> 20} MiB")
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            skipped.append(f"{file.relative_to(path)}: {error}")
            continue
        name = str(file.relative_to(path))
        for number, part in enumerate(split(text), 1):
            passages.append(SourcePassage(f"{name}#{number}", part))
    if not passages:
        why = f"; not readable: {', '.join(skipped[:3])}" if skipped else ""
        raise DataError(f"{path} holds no readable {', '.join(sorted(TEXT_SUFFIXES))} file{why}")
    return passages, skipped


def split(text: str) -> list[str]:
    """Paragraphs gathered to about 1,000 characters; a heading stays with what follows it."""
    parts: list[str] = []
    gathered = ""
    for paragraph in _paragraphs(text):
        heading = paragraph.startswith("#")
        full = len(gathered) + len(paragraph) > PASSAGE_CHARACTERS
        if gathered and (full or (heading and len(gathered) > PASSAGE_CHARACTERS // 4)):
            parts.append(gathered)
            gathered = ""
        gathered = f"{gathered}\n\n{paragraph}".strip()
    return [part for part in [*parts, gathered] if part]


def _paragraphs(text: str) -> Iterator[str]:
    """What stands between blank lines; longer ones by lines, then words, then characters."""
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        rest = paragraph.strip()
        while len(rest) > PASSAGE_CHARACTERS:
            head = rest[:PASSAGE_CHARACTERS]
            # No break in the first half: a sliver would be no passage.
            cuts = (head.rfind(mark, PASSAGE_CHARACTERS // 2) for mark in ("\n", ". ", " "))
            cut = next((place + 1 for place in cuts if place >= 0), PASSAGE_CHARACTERS)
            yield rest[:cut].strip()
            rest = rest[cut:].strip()
        if rest:
            yield rest


def _docstrings(node: ast.AST, name: str) -> Iterator[SourcePassage]:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return
    docstring = ast.get_docstring(node)
    if docstring and len(docstring) > LEAST_DOCSTRING:
        yield SourcePassage(name, f"{name}\n{docstring}")
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if not getattr(child, "name", "_").startswith("_"):
                yield from _docstrings(child, f"{name}.{getattr(child, 'name', '')}")
