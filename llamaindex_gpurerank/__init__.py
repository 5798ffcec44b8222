"""gpurerank in LlamaIndex: a node postprocessor and an embedding."""

from llamaindex_gpurerank.embedding import GPUEmbedding
from llamaindex_gpurerank.postprocessor import GPURerank

__all__ = ["GPUEmbedding", "GPURerank"]
