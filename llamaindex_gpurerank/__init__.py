"""gpurerank in LlamaIndex: a node postprocessor and an embedding."""

from llamaindex_gpurerank.embedding import GPUEmbedding
from llamaindex_gpurerank.postprocessor import GPURerank
from llamaindex_gpurerank.search import as_search

__all__ = ["GPUEmbedding", "GPURerank", "as_search"]
