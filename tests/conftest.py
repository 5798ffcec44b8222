"""Fixtures: tiny models by name, and a fake that satisfies the scorer's seam."""

from __future__ import annotations

import os

# Before any import that reads it: no test may ask the hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ANONYMIZED_TELEMETRY"] = "False"

import gc
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from gpurerank import BiEncoder, Reranker, cli, free_models
from gpurerank.engine.engine import Engine
from tests.tiny_models import build_causal, build_classifier

if TYPE_CHECKING:
    from tests.fake_server import FakeServer


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a tiny model, by family, "two_labels", "causal", "causal_chat" …"""
    built: dict[str, str] = {}

    def folder(name: str) -> str:
        if name not in built:
            path = tmp_path_factory.mktemp(name)
            if name.startswith("causal"):
                build_causal(path, chat=name == "causal_chat")
            elif name == "bidirectional":
                build_causal(path, bidirectional=True)
            elif name == "two_labels":
                build_classifier(path, "bert", labels=2)
            elif name == "three_labels":
                build_classifier(path, "bert", labels=3)
            else:
                build_classifier(path, name)
            built[name] = str(path)
        return built[name]

    return folder


@pytest.fixture(scope="session")
def tiny(model_folder: Callable[[str], str]) -> str:
    """The folder of the tiny BERT cross-encoder."""
    return model_folder("bert")


def pytest_collection_finish() -> None:
    # What the imports made is never garbage; without it a collection after each test is fast.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _models_are_freed() -> Iterator[None]:
    """Models that a test leaves loaded are freed before the next one counts."""
    yield
    gc.collect()
    free_models()


class WordOverlap:
    """A PairScorer in ten lines: the share of the query's words that the passage has."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.seen.extend(pairs)
        return [self._score(query, passage) for query, passage in pairs]

    @staticmethod
    def _score(query: str, passage: str) -> float:
        words = query.lower().split()
        return sum(word in passage.lower() for word in words) / (len(words) + 1)


@pytest.fixture
def overlap() -> WordOverlap:
    return WordOverlap()


@pytest.fixture
def own() -> Iterator[FakeServer]:
    """A server of gpurerank's own kind."""
    # Here, because the fake scores with what stands above.
    from tests.fake_server import serving, speaking

    with serving(speaking("gpurerank")) as server:
        yield server


@pytest.fixture(scope="session")
def embedded() -> Iterator[Reranker]:
    """The embedded cross-encoder, held so that no test loads it anew."""
    with Reranker("embedded") as reranker:
        yield reranker


@pytest.fixture(scope="session")
def bi_encoder() -> Iterator[BiEncoder]:
    """The embedded bi-encoder, held so that no test loads it anew."""
    encoder = BiEncoder("embedded")
    yield encoder
    encoder.close()


def items_run(engine: Engine[Any]) -> int:
    """What an engine has run: a batch is counted just after its results are there."""
    before, now = -1, engine.stats().items
    while before != now:
        time.sleep(0.2)
        before, now = now, engine.stats().items
    return now


class InProcess(Protocol):
    """Runs the command line in this process, which need not import torch again."""

    def __call__(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        ...


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> InProcess:
    def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gpurerank", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return run
