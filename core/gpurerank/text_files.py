"""Text files from users: UTF-8 with or without a byte order mark, and clear errors for the rest."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from gpurerank.errors import DataError

# Longest first: the mark of UTF-32 begins with the one of UTF-16.
_OTHER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def read_lines(path: Path) -> Iterator[str]:
    """Yields the lines of a file without their ends; only a line feed ends a line.

    Raises:
        DataError: The file cannot be read, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            yield from decode_lines(file, str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def read_text(path: Path) -> str:
    """The whole text of a file, with line feeds as the only line ends.

    Raises:
        DataError: The file cannot be read, or is not UTF-8.
    """
    return "\n".join(read_lines(path))


def decode_lines(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Decodes lines such as a binary file yields.

    Args:
        lines: Bytes that were split after each line feed.
        name: Names the source in errors.

    Raises:
        DataError: A line is not UTF-8.
    """
    for number, line in enumerate(lines, 1):
        if number == 1:
            check_encoding(line, name)
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            yield line.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}: line {number} is not UTF-8 (byte 0x{line[error.start]:02x} at column"
                f" {error.start + 1}), perhaps Latin-1 or Windows-1252; convert the file to UTF-8"
            ) from error


def check_encoding(start: bytes, name: str) -> None:
    """Checks that a file does not begin as UTF-16 or UTF-32 text does.

    Args:
        start: The first bytes of the file, at least four where it has them.
        name: Names the source in errors.

    Raises:
        DataError: It begins with such a byte order mark, or every other byte is null.
    """
    encoding = next((known for mark, known in _OTHER_MARKS if start.startswith(mark)), None)
    # Without a mark, each ASCII character of UTF-16 has a null byte beside it.
    if encoding is None and b"\0" in start[:4]:
        encoding = "UTF-16 or UTF-32"
    if encoding is not None:
        raise DataError(f"{name}: line 1 begins as {encoding} text does; convert the file to UTF-8")
