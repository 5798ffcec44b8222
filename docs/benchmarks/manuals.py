"""Makes four collections from manuals that the embedded cross-encoder never saw.

Questions and their answers from the FAQs of Perl and Python, one-line summaries and the text that
they summarize from git's manual and Debian's packages. Each is cut to the words that one would
index, and written as a folder that ``gpurerank eval`` reads.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

# A question or a summary, and the passage that it asks for.
Pair = tuple[str, str]

WORDS = 150
QUERIES = 300
SEED = 20261121
# Packages whose descriptions repeat those of others, all but a word.
FAMILIES = re.compile(
    r"-(dev|doc|dbg|data|common)$|^(lib|golang|node|ruby|python3|r-cran|haskell|rust)"
)


def main() -> None:
    """Reads the manuals and writes the collections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "manuals", type=Path, help="where the packages were unpacked; / if installed"
    )
    parser.add_argument("descriptions", type=Path, help="Translation-en.xz of the archive")
    parser.add_argument("output", type=Path, help="folder for the collections")
    given = parser.parse_args()
    share = given.manuals / "usr/share"
    found: dict[str, Iterable[Pair]] = {
        "perl-faq": perl_faq(share),
        "python-faq": python_faq(share),
        "git-manual": git_manual(share),
        "debian-packages": package_descriptions(given.descriptions),
    }
    for name, pairs in found.items():
        count = write(given.output / name, pairs)
        if not count:
            parser.error(f"{given.manuals} holds nothing of {name}; unpack its package there")
        print(f"{name}: {count} passages")  # noqa: T201


def perl_faq(share: Path) -> Iterator[Pair]:
    """Package perl-doc."""
    for path in sorted(share.glob("perl/*/pod/perlfaq[0-9].pod")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for question, answer in re.findall(
            r"^=head2 (.+?)\n\n(.*?)(?=^=head|^=cut)", text, re.DOTALL | re.MULTILINE
        ):
            answer = re.sub(r"^=\w+.*$|\(contributed by .*?\)", "", answer, flags=re.MULTILINE)
            yield _without_pod(question), _without_pod(answer)


def _without_pod(text: str) -> str:
    return re.sub(r"[A-Z]<+\s?([^<>]*?)\s?>+", r"\1", re.sub(r"X<[^>]*>", "", text))


def python_faq(share: Path) -> Iterator[Pair]:
    """Package python3.11-doc."""
    for path in sorted(share.glob("doc/python3.*/html/_sources/faq/*.rst.txt")):
        text = re.sub(r":\w+:`~?([^`<]*?)( <[^>]*>)?`", r"\1", path.read_text(encoding="utf-8"))
        text = re.sub(r"^\.\. .*$", "", text.replace("``", ""), flags=re.MULTILINE)
        yield from re.findall(
            r"^([^\n]+\?)\n-{5,}\n(.*?)(?=^[^\n]+\n[-=]{5,}\n|\Z)", text, re.DOTALL | re.MULTILINE
        )


def git_manual(share: Path) -> Iterator[Pair]:
    """Package git-doc."""
    for path in sorted(share.glob("doc/git-doc/git-*.txt")):
        text = re.sub(r"[`'_*]", "", path.read_text(encoding="utf-8", errors="replace"))
        yield from re.findall(
            r"^NAME\n-+\n\S+ - (.+?)\n\n.*?^DESCRIPTION\n-+\n(.*?)(?=^\w[^\n]*\n-{3,}\n|\Z)",
            text,
            re.DOTALL | re.MULTILINE,
        )


def package_descriptions(path: Path) -> list[Pair]:
    """4,000 packages drawn at random."""
    pairs = []
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for entry in file.read().split("\n\n"):
            told = re.search(
                r"^Package: (\S+)\n.*?^Description-en: (.+?)\n(.*)", entry, re.DOTALL | re.MULTILINE
            )
            if told and not FAMILIES.search(told[1]) and len(told[3].split()) > 15:
                pairs.append((told[2], re.sub(r"^ \.$", "", told[3], flags=re.MULTILINE)))
    return random.Random(SEED).sample(pairs, 4000)


def write(folder: Path, pairs: Iterable[Pair]) -> int:
    """Writes a collection; of pairs with the same passage the first; returns how many passages."""
    passages: dict[str, str] = {}
    for query, text in pairs:
        passage, asked = " ".join(text.split()[:WORDS]), " ".join(query.split())
        if len(passage.split()) >= 8 and len(asked.split()) >= 3:
            passages.setdefault(passage, asked)
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    numbers = range(len(passages))
    drawn = sorted(random.Random(SEED).sample(numbers, min(QUERIES, len(numbers))))
    asked_of = list(passages.values())
    _write_lines(
        folder / "corpus.jsonl",
        ({"_id": f"p{i}", "title": "", "text": passage} for i, passage in enumerate(passages)),
    )
    _write_lines(folder / "queries.jsonl", ({"_id": f"q{i}", "text": asked_of[i]} for i in drawn))
    judged = "".join(f"q{i}\tp{i}\t1\n" for i in drawn)
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return len(passages)


def _write_lines(path: Path, rows: Iterator[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
