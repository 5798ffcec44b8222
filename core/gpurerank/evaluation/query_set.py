"""Judged queries with the candidates that a first stage retrieved for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np

from gpurerank.collection import Collection
from gpurerank.errors import DataError, InputError
from gpurerank.faults import Fault, FaultCounter

# From a question to (id, text, score) of each retrieved passage, best first. The id is the one that
# relevance judgements name; several passages may share it, as the parts of a document do.
Search = Callable[[str], Sequence[tuple[str, str, float]]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that the first stage retrieved."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """One query with its relevance judgements and candidates.

    Attributes:
        grades: Relevance by document id; a grade above 0 is relevant.
        candidates: Best first, in the order of the first stage.
    """

    id: str
    text: str
    grades: Mapping[str, int]
    candidates: tuple[Candidate, ...]

    def reachable(self, depth: int) -> bool:
        """Whether one of the first ``depth`` candidates is relevant."""
        return any(self.grades.get(c.id, 0) > 0 for c in self.candidates[:depth])


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Judged queries of one collection.

    Attributes:
        name: Name of the collection, for the reports.
        first_stage: What retrieved the candidates, such as "BM25".
        queries: At least one, each with at least one relevant document.
        faults: Problems in the data, and what became of the entries.
        available: Judged queries that the collection has; more than ``queries`` where they are a
            sample.

    Example:
        >>> from gpurerank.evaluation import QuerySet
        >>> def search(question):
        ...     return [("keys.md", "Keys are rotated monthly.", 1.2), ("vpn.md", "VPN.", 0.3)]
        >>> queries = QuerySet.from_search(search, [("when are keys rotated?", {"keys.md"})])
        >>> len(queries.queries), queries.queries[0].reachable(depth=1)
        (1, True)
    """

    name: str
    first_stage: str
    queries: tuple[JudgedQuery, ...]
    faults: tuple[Fault, ...] = ()
    available: int = 0

    @classmethod
    def from_candidate_ids(
        cls,
        collection: Collection,
        candidate_ids: Mapping[str, Sequence[str]],
        *,
        first_stage: str,
        depth: int,
        faults: tuple[Fault, ...] = (),
    ) -> QuerySet:
        """Queries of a collection with candidates that were retrieved before.

        Args:
            collection: Documents, queries and judgements.
            candidate_ids: Document ids by query id, best first; only these queries are taken.
            first_stage: What retrieved them, for the reports.
            depth: Candidates kept per query.
            faults: Problems in the candidates, added to those of the collection.
        """
        queries = tuple(
            JudgedQuery(
                query_id,
                collection.queries[query_id].text,
                collection.judgements[query_id],
                tuple(Candidate(i, collection.documents[i].passage) for i in ids[:depth]),
            )
            for query_id, ids in candidate_ids.items()
        )
        available = len(judged_query_ids(collection))
        return cls(collection.name, first_stage, queries, (*collection.faults, *faults), available)

    @classmethod
    def from_search(
        cls,
        search: Search,
        questions: Iterable[tuple[str, AbstractSet[str] | Sequence[str]]],
        *,
        depth: int = 50,
        name: str = "questions",
        first_stage: str = "retriever",
    ) -> QuerySet:
        """Questions with the ids that answer them, and the candidates that a retriever returns.

        Args:
            search: The retriever; ``langchain_gpurerank.as_search`` and
                ``llamaindex_gpurerank.as_search`` make one of a framework's retriever.
            questions: Each question with the ids of its relevant documents.
            depth: Candidates kept per question; the retriever should return as many.
            name: Name of the set, for the reports.
            first_stage: Name of the retriever, for the reports.

        Raises:
            InputError: ``search`` is not callable.
            DataError: No question has a relevant id.
        """
        if not callable(search):
            raise InputError(
                f"search is {type(search).__name__}, which is not callable; wrap a retriever with"
                " langchain_gpurerank.as_search(…) or llamaindex_gpurerank.as_search(…), or pass a"
                " function that takes a question and returns (id, text, score) of each passage"
            )
        counter, queries = FaultCounter(), []
        for number, (question, relevant) in enumerate(questions, 1):
            # A string is a sequence too: "doc7" would become four ids of one character.
            ids = {relevant} if isinstance(relevant, str) else set(map(str, relevant))
            if not ids or not question.strip():
                problem = "blank question" if ids else "question without a relevant id"
                counter.add(problem, "left out", f"question {number}: {question[:60]!r}")
                continue
            retrieved = tuple(Candidate(str(i), text) for i, text, _ in search(question)[:depth])
            queries.append(JudgedQuery(str(number), question, dict.fromkeys(ids, 1), retrieved))
        if not queries:
            raise DataError("no question has a relevant id; give each question at least one")
        return cls(name, first_stage, tuple(queries), counter.faults(), len(queries))

    def with_empty_queries_reported(self) -> QuerySet:
        """The same set; queries without a candidate are added to ``faults``.

        They stay in the set and every measure of theirs is 0: dropping them would flatter the
        first stage.
        """
        counter = FaultCounter()
        for query in self.queries:
            if not query.candidates:
                counter.add("query without a candidate", "counts as 0", repr(query.id))
        return replace(self, faults=(*self.faults, *counter.faults()))


def judged_query_ids(collection: Collection) -> list[str]:
    """Ids of the queries that have a relevant document, in file order."""
    return [query_id for query_id in collection.judgements if collection.relevant(query_id)]


def sample_query_ids(collection: Collection, count: int | None, seed: int) -> list[str]:
    """Ids of ``count`` judged queries, drawn at random, in file order.

    Args:
        collection: Queries without a relevant document are never drawn.
        count: None, or more than there are, for all of them.
        seed: Of the draw.

    Raises:
        DataError: No query has a relevant document.
    """
    usable = judged_query_ids(collection)
    if not usable:
        raise DataError(
            f"{collection.name}: no query has a relevant document; a relevant document has a grade"
            " above 0 in the qrels file"
        )
    if count is None or count >= len(usable):
        return usable
    drawn = np.random.default_rng(seed).choice(len(usable), size=count, replace=False)
    # Back in file order, as every other list of query ids is.
    return [usable[row] for row in sorted(drawn.tolist())]
