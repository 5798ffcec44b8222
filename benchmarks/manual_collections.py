"""Builds four collections from manuals that the training of the embedded model never used.

Questions and answers of the Perl and Python FAQs, and one-line summaries with the text that they
summarize from git's manual and Debian's packages. Passages are cut to the words that one would
index, and written as folders that ``gpurerank eval`` reads.
"""

from __future__ import annotations

import json
import lzma
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gpurerank.errors import DataError

# A question or a summary, and the passage that is relevant to it.
Pair = tuple[str, str]

PASSAGE_WORDS = 150
MIN_PASSAGE_WORDS = 8
MIN_QUERY_WORDS = 3
QUERIES = 300
PACKAGES = 4_000
MIN_DESCRIPTION_WORDS = 15
SEED = 20261121
# Packages whose descriptions repeat another one but for a word.
FAMILIES = re.compile(
    r"-(dev|doc|dbg|data|common)$|^(lib|golang|node|ruby|python3|r-cran|haskell|rust)"
)


def build_collections(manuals: Path, descriptions: Path, output: Path) -> dict[str, int]:
    """Writes the collections.

    Args:
        manuals: Where the packages are unpacked; ``/`` if they are installed.
        descriptions: ``Translation-en.xz`` of the Debian archive.
        output: Folder that receives a folder per collection.

    Returns:
        Passages by name of the collection.

    Raises:
        DataError: ``manuals`` has no text for a collection.
    """
    share = manuals / "usr/share"
    readers: dict[str, Callable[[], Iterable[Pair]]] = {
        "perl-faq": lambda: read_perl_faq(share),
        "python-faq": lambda: read_python_faq(share),
        "git-manual": lambda: read_git_manual(share),
        "debian-packages": lambda: sample_package_descriptions(descriptions),
    }
    counts = {}
    for name, read in readers.items():
        counts[name] = write_collection(output / name, read())
        if not counts[name]:
            raise DataError(f"{manuals} has no text for {name}; unpack its package there")
    return counts


def read_perl_faq(share: Path) -> Iterator[Pair]:
    """Questions and answers of the Debian package perl-doc."""
    for path in sorted(share.glob("perl/*/pod/perlfaq[0-9].pod")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for question, answer in re.findall(
            r"^=head2 (.+?)\n\n(.*?)(?=^=head|^=cut)", text, re.DOTALL | re.MULTILINE
        ):
            answer = re.sub(r"^=\w+.*$|\(contributed by .*?\)", "", answer, flags=re.MULTILINE)
            yield _remove_pod(question), _remove_pod(answer)


def _remove_pod(text: str) -> str:
    return re.sub(r"[A-Z]<+\s?([^<>]*?)\s?>+", r"\1", re.sub(r"X<[^>]*>", "", text))


def read_python_faq(share: Path) -> Iterator[Pair]:
    """Questions and answers of the Debian package python3.11-doc."""
    for path in sorted(share.glob("doc/python3.*/html/_sources/faq/*.rst.txt")):
        text = re.sub(r":\w+:`~?([^`<]*?)( <[^>]*>)?`", r"\1", path.read_text(encoding="utf-8"))
        text = re.sub(r"^\.\. .*$", "", text.replace("``", ""), flags=re.MULTILINE)
        yield from re.findall(
            r"^([^\n]+\?)\n-{5,}\n(.*?)(?=^[^\n]+\n[-=]{5,}\n|\Z)", text, re.DOTALL | re.MULTILINE
        )


def read_git_manual(share: Path) -> Iterator[Pair]:
    """Summaries and descriptions of commands from the Debian package git-doc."""
    for path in sorted(share.glob("doc/git-doc/git-*.txt")):
        text = re.sub(r"[`'_*]", "", path.read_text(encoding="utf-8", errors="replace"))
        yield from re.findall(
            r"^NAME\n-+\n\S+ - (.+?)\n\n.*?^DESCRIPTION\n-+\n(.*?)(?=^\w[^\n]*\n-{3,}\n|\Z)",
            text,
            re.DOTALL | re.MULTILINE,
        )


def sample_package_descriptions(path: Path) -> list[Pair]:
    """Summaries and descriptions of 4,000 packages, drawn at random with a fixed seed."""
    pairs = []
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for entry in file.read().split("\n\n"):
            match = re.search(
                r"^Package: (\S+)\n.*?^Description-en: (.+?)\n(.*)", entry, re.DOTALL | re.MULTILINE
            )
            if match is None or FAMILIES.search(match[1]):
                continue
            summary, description = match[2], match[3]
            if len(description.split()) > MIN_DESCRIPTION_WORDS:
                pairs.append((summary, re.sub(r"^ \.$", "", description, flags=re.MULTILINE)))
    return random.Random(SEED).sample(pairs, PACKAGES)


def write_collection(folder: Path, pairs: Iterable[Pair]) -> int:
    """Writes a collection in BEIR layout; of pairs with the same passage the first.

    Returns:
        Number of passages.
    """
    query_by_passage: dict[str, str] = {}
    for query_text, text in pairs:
        passage = " ".join(text.split()[:PASSAGE_WORDS])
        query = " ".join(query_text.split())
        if len(passage.split()) >= MIN_PASSAGE_WORDS and len(query.split()) >= MIN_QUERY_WORDS:
            query_by_passage.setdefault(passage, query)
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    numbers = range(len(query_by_passage))
    sampled = sorted(random.Random(SEED).sample(numbers, min(QUERIES, len(numbers))))
    queries = list(query_by_passage.values())
    passages = enumerate(query_by_passage)
    _write_lines(
        folder / "corpus.jsonl",
        ({"_id": f"p{i}", "title": "", "text": passage} for i, passage in passages),
    )
    _write_lines(folder / "queries.jsonl", ({"_id": f"q{i}", "text": queries[i]} for i in sampled))
    judgements = "".join(f"q{i}\tp{i}\t1\n" for i in sampled)
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judgements}")
    return len(query_by_passage)


def _write_lines(path: Path, rows: Iterator[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
