"""Corpora to search: the standard library's docstrings, or a folder of text files."""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpurerank.errors import DataError
from gpurerank.text_files import read_text

TEXT_SUFFIXES = frozenset({".md", ".markdown", ".txt", ".rst", ".text"})
_SHORTEST_DOCSTRING = 31
_LARGEST_FILE_BYTES = 10 << 20
_PASSAGE_CHARACTERS = 1_000
_SKIPPED_PACKAGES = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test"}
)


@dataclass(frozen=True, slots=True)
class SourcePassage:
    """A passage with its source: a qualified name, or a file and the number of the part."""

    source: str
    text: str

    @property
    def id(self) -> str:
        """A digest of source and text, by which unchanged passages are not embedded again."""
        return hashlib.sha256(f"{self.source}\0{self.text}".encode("utf-8", "replace")).hexdigest()


def read_standard_library(modules: Collection[str] | None = None) -> list[SourcePassage]:
    """Reads the docstrings over 30 characters of public modules, classes and functions.

    They come from the source files of the running Python; nothing is imported.

    Args:
        modules: Top-level modules to read; None for all.

    Example:
        >>> passages = read_standard_library({"heapq"})
        >>> "heapq.merge" in [passage.source for passage in passages]
        True
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    passages: dict[str, SourcePassage] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if modules is not None and parts[0] not in modules:
            continue
        if _SKIPPED_PACKAGES.intersection(parts) or any(
            p[0] == "_" and p != "__init__" for p in parts
        ):
            continue
        try:
            module = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):  # some files test syntax errors
            continue
        name = ".".join(part for part in parts if part != "__init__")
        for passage in _docstrings(module, name):
            passages.setdefault(passage.source, passage)
    return list(passages.values())


def read_folder(path: Path) -> tuple[list[SourcePassage], list[str]]:
    """Reads the text and Markdown files below a folder, in passages of about 1,000 characters.

    Returns:
        The passages, and a message for each file that could not be read.

    Raises:
        DataError: The folder does not exist, or has no readable file.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; --docs takes a folder of .md or .txt files")
    passages: list[SourcePassage] = []
    skipped: list[str] = []
    for file in sorted(p for p in path.rglob("*") if p.suffix.lower() in TEXT_SUFFIXES):
        if not file.is_file() or any(part.startswith(".") for part in file.relative_to(path).parts):
            continue
        try:
            if file.stat().st_size > _LARGEST_FILE_BYTES:
                raise ValueError(f"over {_LARGEST_FILE_BYTES >> 20} MiB")
            text = read_text(file)
        except (OSError, ValueError) as error:
            skipped.append(f"{file.relative_to(path)}: {error}")
            continue
        name = str(file.relative_to(path))
        for number, part in enumerate(split_text(text), 1):
            passages.append(SourcePassage(f"{name}#{number}", part))
    if not passages:
        reasons = f"; not readable: {', '.join(skipped[:3])}" if skipped else ""
        suffixes = ", ".join(sorted(TEXT_SUFFIXES))
        raise DataError(f"{path} has no readable {suffixes} file{reasons}")
    return passages, skipped


def split_text(text: str) -> list[str]:
    """Joins paragraphs into parts of about 1,000 characters; a heading stays with its text."""
    parts: list[str] = []
    part = ""
    for paragraph in _paragraphs(text):
        is_heading = paragraph.startswith("#")
        is_full = len(part) + len(paragraph) > _PASSAGE_CHARACTERS
        if part and (is_full or (is_heading and len(part) > _PASSAGE_CHARACTERS // 4)):
            parts.append(part)
            part = ""
        part = f"{part}\n\n{paragraph}".strip()
    return [*parts, part] if part else parts


def _paragraphs(text: str) -> Iterator[str]:
    """Yields the paragraphs; long ones are cut at a line, a sentence, a word or a character."""
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        rest = paragraph.strip()
        while len(rest) > _PASSAGE_CHARACTERS:
            head = rest[:_PASSAGE_CHARACTERS]
            # Never in the first half: a passage of a few words says too little.
            ends = (head.rfind(mark, _PASSAGE_CHARACTERS // 2) for mark in ("\n", ". ", " "))
            cut = next((end + 1 for end in ends if end >= 0), _PASSAGE_CHARACTERS)
            yield rest[:cut].strip()
            rest = rest[cut:].strip()
        if rest:
            yield rest


def _docstrings(node: ast.AST, name: str) -> Iterator[SourcePassage]:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return
    docstring = ast.get_docstring(node)
    if docstring and len(docstring) >= _SHORTEST_DOCSTRING:
        yield SourcePassage(name, f"{name}\n{docstring}")
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if not getattr(child, "name", "_").startswith("_"):
                yield from _docstrings(child, f"{name}.{getattr(child, 'name', '')}")
