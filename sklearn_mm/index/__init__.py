"""Search for the nearest items: exact with numpy, or through faiss."""

from sklearn_mm.index._exact import ExactIndex
from sklearn_mm.index._faiss import FaissIndex

__all__ = ["ExactIndex", "FaissIndex"]
