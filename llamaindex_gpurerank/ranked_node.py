"""Nodes as they leave the postprocessor, with a provenance that is not part of their content."""

from __future__ import annotations

from typing import Any

PROVENANCE = "gpurerank"


class RankedMetadata(dict[str, Any]):
    """The metadata of a ranked node, with the provenance of its rank behind one more key.

    ``metadata["gpurerank"]``, ``metadata.get("gpurerank")`` and ``"gpurerank" in metadata`` reach
    the provenance. It is not among the items, because LlamaIndex makes a node's hash, its
    serialized form and the text that models read from those: a retriever that merges results by
    hash, such as QueryFusionRetriever, would take one node with two scores for two nodes.
    """

    __slots__ = ("_provenance",)

    def __init__(self, metadata: dict[str, Any], provenance: dict[str, Any]) -> None:
        super().__init__(metadata)
        self._provenance = provenance

    def __missing__(self, key: str) -> Any:
        if key == PROVENANCE:
            return self._provenance
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return key == PROVENANCE or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, the provenance included."""
        return self[key] if key in self else default
