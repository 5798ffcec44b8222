"""What is judged: queries, what is relevant to them, and what the first stage found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np

from gpurerank.collection import Collection
from gpurerank.errors import DataError, InputError
from gpurerank.faults import Fault, FaultCounter

# A question in; (id, text, score) of each passage found, best first. The id is what judgements
# name; several passages may share one, as the parts of a document do.
Search = Callable[[str], Sequence[tuple[str, str, float]]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that the first stage found."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """One query, the grades of what is relevant to it (over 0), and its candidates, best first."""

    id: str
    text: str
    grades: Mapping[str, int]
    candidates: tuple[Candidate, ...]

    def reachable(self, depth: int) -> bool:
        """Whether a relevant passage is among the first so many candidates."""
        return any(self.grades.get(c.id, 0) > 0 for c in self.candidates[:depth])


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Judged queries of one collection, with what was wrong with it.

    Attributes:
        name: The collection.
        first_stage: What found the candidates, such as "BM25".
        queries: At least one, each with at least one relevant passage.
        faults: What was left out.
        judged: Queries that could have been taken; more than there are where a sample was drawn.
    """

    name: str
    first_stage: str
    queries: tuple[JudgedQuery, ...]
    faults: tuple[Fault, ...] = ()
    judged: int = 0

    @classmethod
    def from_found(
        cls,
        collection: Collection,
        found: Mapping[str, Sequence[str]],
        *,
        first_stage: str,
        depth: int,
        faults: tuple[Fault, ...] = (),
    ) -> QuerySet:
        """The queries of a collection with the ids that a first stage found for each."""
        queries = tuple(
            JudgedQuery(
                query_id,
                collection.queries[query_id].text,
                collection.judgements[query_id],
                tuple(Candidate(i, collection.documents[i].passage) for i in ids[:depth]),
            )
            for query_id, ids in found.items()
        )
        whole = len(judged_queries(collection))
        return cls(collection.name, first_stage, queries, (*collection.faults, *faults), whole)

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
        """Questions with the ids that answer them, and what a retriever of yours finds.

        Args:
            search: The retriever; ``langchain_gpurerank.as_search`` and
                ``llamaindex_gpurerank.as_search`` make one of a framework's.
            questions: Each question with its relevant ids.
            depth: Candidates kept of each; let the retriever find as many.
            name: Name of the set, for the report.
            first_stage: What the report calls the retriever.

        Raises:
            InputError: ``search`` is no callable.
            DataError: No question has a relevant id.
        """
        if not callable(search):
            raise InputError(
                f"{type(search).__name__} is no search; wrap it: langchain_gpurerank.as_search(…)"
                " or llamaindex_gpurerank.as_search(…), or give a callable that takes a question"
                " and returns (id, text, score) for each passage"
            )
        faults, queries = FaultCounter(), []
        for number, (question, relevant) in enumerate(questions, 1):
            ids = {relevant} if isinstance(relevant, str) else set(map(str, relevant))
            if not ids or not question.strip():
                what = "blank question" if ids else "question without a relevant id"
                faults.add(what, "left out", f"question {number}: {question[:60]!r}")
                continue
            found = tuple(Candidate(str(i), text) for i, text, _ in search(question)[:depth])
            queries.append(JudgedQuery(str(number), question, dict.fromkeys(ids, 1), found))
        if not queries:
            raise DataError("there is no question with a relevant id")
        return cls(name, first_stage, tuple(queries), faults.faults(), len(queries))

    def without_empty(self) -> QuerySet:
        """The same; counts the queries for which nothing was found, which stay and count as 0."""
        faults = FaultCounter()
        for query in self.queries:
            if not query.candidates:
                faults.add("query for which nothing was found", "counts as 0", repr(query.id))
        return replace(self, faults=(*self.faults, *faults.faults()))


def judged_queries(collection: Collection) -> list[str]:
    """Ids of the queries that have a relevant document, in file order."""
    return [query_id for query_id in collection.judgements if collection.relevant(query_id)]


def sample(collection: Collection, count: int | None, seed: int) -> list[str]:
    """Ids of ``count`` queries with a relevant document, drawn at random; all for None.

    Raises:
        DataError: No query has a relevant document.
    """
    usable = judged_queries(collection)
    if not usable:
        raise DataError(
            f"{collection.name}: no query has a relevant document; a judgement over 0 is relevant"
        )
    if count is None or count >= len(usable):
        return usable
    drawn = np.random.default_rng(seed).choice(len(usable), size=count, replace=False)
    return [usable[row] for row in sorted(drawn.tolist())]
