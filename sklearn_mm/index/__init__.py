"""Search for the nearest items: exact with numpy and torch, or through faiss."""

from sklearn_mm.index._exact import ExactIndex
from sklearn_mm.index._faiss import FaissIndex
from sklearn_mm.index._recall import recall_against_exact
from sklearn_mm.index._scan import exact_scores as exact_scores
from sklearn_mm.index._vectors import check_rows as check_rows

__all__ = ["ExactIndex", "FaissIndex", "recall_against_exact"]
