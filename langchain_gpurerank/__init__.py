"""gpurerank in LangChain: one line around a retriever, or a compressor for your own chain."""

from langchain_gpurerank.compressor import GPURerank
from langchain_gpurerank.cross_encoder import GPUCrossEncoder
from langchain_gpurerank.embeddings import GPUEmbeddings
from langchain_gpurerank.retriever import RerankRetriever, rerank
from langchain_gpurerank.search import as_search

__all__ = [
    "GPUCrossEncoder",
    "GPUEmbeddings",
    "GPURerank",
    "RerankRetriever",
    "as_search",
    "rerank",
]
