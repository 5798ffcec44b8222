"""A demo on real text: index a corpus in Chroma, retrieve, rerank, and show what moved."""
