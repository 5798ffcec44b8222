"""The document compressor: reranks documents and keeps the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import BeforeValidator

from gpurerank import InputError, RankedPassage, RerankSettings, calling, read_items
from langchain_gpurerank.passages import DocumentText, check_document_text, passages_of
from langchain_gpurerank.ranked_document import ranked_metadata
from langchain_gpurerank.tracing import RerankRun


class GPURerank(RerankSettings, BaseDocumentCompressor):
    """Reranks documents for a query.

    Documents come back as deep copies, best first, with ``metadata["relevance_score"]`` and the
    whole provenance under ``metadata["gpurerank"]``; neither counts when documents are compared.
    Those that went in are not touched.

    Its options are those of ``gpurerank.RerankSettings`` and these.

    Attributes:
        document_text: What is scored in place of ``page_content``: a function that makes the text
            of a document, or the metadata keys whose values are put before ``page_content``, such
            as ``["title", "heading"]``. The span in the provenance counts in ``page_content``; it
            is None where the scored text does not contain it.
        provenance: "metadata", or "none" to write neither the score nor the provenance into the
            copies, for chains that compare documents by all of their metadata.
    """

    document_text: Annotated[DocumentText | None, BeforeValidator(check_document_text)] = None
    provenance: Literal["metadata", "none"] = "metadata"

    def compress_documents(
        self, documents: Iterable[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents, as copies, best first."""
        return self.rerank_documents(documents, query, self.top_n, callbacks)

    async def acompress_documents(
        self, documents: Iterable[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """As ``compress_documents``, without blocking the event loop."""
        return await self.arerank_documents(documents, query, self.top_n, callbacks)

    def rerank_documents(
        self,
        documents: Iterable[Document],
        query: str,
        top_n: int | None,
        callbacks: Callbacks | None = None,
    ) -> list[Document]:
        """As ``compress_documents``, with another ``top_n``; a child run in the trace."""
        checked = self._checked(documents)
        report = RerankRun(query, checked, top_n, self._ranker.model_name)
        run = report.start(callbacks)
        try:
            with calling() as call:
                ranked = self._rank(query, passages_of(checked, self.document_text), top_n)
        except BaseException as error:
            run.on_chain_error(error)
            raise
        reranked = [self._ranked_copy(checked[passage.index], passage) for passage in ranked]
        run.on_chain_end(report.outputs(run, reranked, call.stages_ms))
        return reranked

    async def arerank_documents(
        self,
        documents: Iterable[Document],
        query: str,
        top_n: int | None,
        callbacks: Callbacks | None = None,
    ) -> list[Document]:
        """As ``rerank_documents``, without blocking the event loop."""
        checked = self._checked(documents)
        report = RerankRun(query, checked, top_n, self._ranker.model_name)
        run = await report.astart(callbacks)
        try:
            with calling() as call:
                ranked = await self._arank(query, passages_of(checked, self.document_text), top_n)
        except BaseException as error:
            await run.on_chain_error(error)
            raise
        reranked = [self._ranked_copy(checked[passage.index], passage) for passage in ranked]
        await run.on_chain_end(report.outputs(run, reranked, call.stages_ms))
        return reranked

    def _checked(self, documents: Iterable[Document]) -> list[Document]:
        # Iterating over one document would read its fields.
        if isinstance(documents, Document):
            raise InputError("the documents are one Document; give a list of Documents")
        checked = read_items(documents, "the documents are", "a list of Documents")
        for index, document in enumerate(checked):
            if not isinstance(document, Document):
                raise InputError(
                    f"document {index} is {type(document).__name__}; give a"
                    " langchain_core.documents.Document"
                )
        return checked

    def _ranked_copy(self, document: Document, passage: RankedPassage) -> Document:
        twin = self._copy_item(document)
        if self.provenance == "none":
            return twin
        # Past validation, which a subclass may ask for and which makes a plain dictionary of it.
        vars(twin)["metadata"] = ranked_metadata(
            twin.metadata, passage, passage.span_in(document.page_content)
        )
        return twin
