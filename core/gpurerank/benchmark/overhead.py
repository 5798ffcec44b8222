"""What a plugin adds to the core, with a scorer whose own time is nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial

from gpurerank.benchmark.records import OverheadRecord, Timing
from gpurerank.benchmark.rounds import rotated, timed_ms, uncollected
from gpurerank.benchmark.texts import QUERY_WORDS, corpus_words
from gpurerank.reranker import Reranker

DOCUMENTS = 100
ROUNDS = 100
WARM_UPS = 5


class CountedScorer:
    """A PairScorer without a model: scores fall with the pair's place."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Scores between 0 and 1, all different."""
        return [1 / (2 + place) for place in range(len(pairs))]


def measure_overhead(note: Callable[[str], None]) -> list[OverheadRecord]:
    """One record for each plugin whose framework is installed; a line for the others."""
    reranker = Reranker.from_scorer(CountedScorer(), name="counted")
    words = corpus_words()
    query = " ".join(words[:QUERY_WORDS])
    passages = [" ".join(words[i * 100 : (i + 1) * 100]) for i in range(DOCUMENTS)]
    core = partial(reranker.rank, query, passages)
    found = []
    for name, prepared in (("LangChain", _langchain), ("LlamaIndex", _llama_index)):
        try:
            call = prepared(reranker, query, passages)
        except ImportError as error:
            note(f"no overhead of {name}: {str(error).splitlines()[0]}")
            continue
        found.append(_compare(name, core, call))
    return found


def _compare(
    name: str, core: Callable[[], object], through_plugin: Callable[[], object]
) -> OverheadRecord:
    times: dict[Callable[[], object], list[float]] = {core: [], through_plugin: []}
    # Collected once for all rounds: with a framework loaded it takes longer than a round.
    with uncollected():
        for number in range(WARM_UPS + ROUNDS):
            for call in rotated([[core], [through_plugin]], number):
                times[call].append(timed_ms(call))
    return OverheadRecord(
        name,
        DOCUMENTS,
        Timing("core", times[core][WARM_UPS:]),
        Timing(name, times[through_plugin][WARM_UPS:]),
    )


# By name: the core knows no plugin, and neither may be installed.
def _langchain(reranker: Reranker, query: str, passages: list[str]) -> Callable[[], object]:
    documents = importlib.import_module("langchain_core.documents")
    plugin = importlib.import_module("langchain_gpurerank").GPURerank(ranker=reranker, top_n=None)
    given = [documents.Document(page_content=passage) for passage in passages]
    return partial(plugin.compress_documents, given, query)


def _llama_index(reranker: Reranker, query: str, passages: list[str]) -> Callable[[], object]:
    schema = importlib.import_module("llama_index.core.schema")
    plugin = importlib.import_module("llamaindex_gpurerank").GPURerank(ranker=reranker, top_n=None)
    given = [schema.NodeWithScore(node=schema.TextNode(text=passage)) for passage in passages]
    return partial(plugin.postprocess_nodes, given, query_str=query)
