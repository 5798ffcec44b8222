"""What a plugin adds to the core, measured with a scorer that takes no time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.peer_report import OverheadRecord
from gpurerank import Reranker
from gpurerank.benchmark.bench_report import Timing
from gpurerank.benchmark.synthetic_text import QUERY_WORDS, prose_words
from gpurerank.benchmark.timing import garbage_collection_paused, rotate, timed_ms

DOCUMENTS = 100
WORDS_PER_DOCUMENT = 100
ROUNDS = 100
WARM_UPS = 5


class PositionScorer:
    """A PairScorer without a model: scores fall with the pair's position."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Distinct scores between 0 and 1."""
        return [1 / (2 + position) for position in range(len(pairs))]


def measure_overhead(note: Callable[[str], None]) -> list[OverheadRecord]:
    """Measures each plugin whose framework is installed, and notes the others."""
    reranker = Reranker.from_scorer(PositionScorer(), name="positions")
    words = prose_words()
    query = " ".join(words[:QUERY_WORDS])
    starts = range(0, DOCUMENTS * WORDS_PER_DOCUMENT, WORDS_PER_DOCUMENT)
    passages = [" ".join(words[start : start + WORDS_PER_DOCUMENT]) for start in starts]
    core = partial(reranker.rank, query, passages)
    records = []
    for name, prepare in (("LangChain", _langchain_call), ("LlamaIndex", _llamaindex_call)):
        try:
            call = prepare(reranker, query, passages)
        except ImportError as error:
            note(f"no overhead of {name}: {str(error).splitlines()[0]}")
            continue
        records.append(_compare(name, core, call))
    return records


def _compare(
    name: str, core: Callable[[], object], through_plugin: Callable[[], object]
) -> OverheadRecord:
    times_ms: dict[Callable[[], object], list[float]] = {core: [], through_plugin: []}
    # Collected once for all rounds: with a framework loaded it takes longer than a round.
    with garbage_collection_paused():
        for number in range(WARM_UPS + ROUNDS):
            for call in rotate([core, through_plugin], number):
                times_ms[call].append(timed_ms(call))
    return OverheadRecord(
        name,
        DOCUMENTS,
        Timing("core", times_ms[core][WARM_UPS:]),
        Timing(name, times_ms[through_plugin][WARM_UPS:]),
    )


def _langchain_call(reranker: Reranker, query: str, passages: list[str]) -> Callable[[], object]:
    from langchain_core.documents import Document

    from langchain_gpurerank import GPURerank

    plugin = GPURerank(ranker=reranker, top_n=None)
    documents = [Document(page_content=passage) for passage in passages]
    return partial(plugin.compress_documents, documents, query)


def _llamaindex_call(reranker: Reranker, query: str, passages: list[str]) -> Callable[[], object]:
    from llama_index.core.schema import NodeWithScore, TextNode

    from llamaindex_gpurerank import GPURerank

    plugin = GPURerank(ranker=reranker, top_n=None)
    nodes = [NodeWithScore(node=TextNode(text=passage)) for passage in passages]
    return partial(plugin.postprocess_nodes, nodes, query_str=query)
