"""Transformers that turn pictures and sentences into vectors."""

from sklearn_mm.features._full_network import FullNetworkEmbedding

__all__ = ["FullNetworkEmbedding"]
