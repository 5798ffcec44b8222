"""The main job on real input: index a corpus in Chroma, retrieve, rerank, show what moved."""
