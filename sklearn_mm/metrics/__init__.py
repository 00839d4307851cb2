"""How good a ranking is: exact ranks, the published numbers, and a scorer."""

from sklearn_mm.metrics._ranking import retrieval_ranks
from sklearn_mm.metrics._ranks import (
    RetrievalRanks,
    hit_at_k,
    mean_rank,
    median_rank,
    recall_at_k,
)
from sklearn_mm.metrics._report import retrieval_report
from sklearn_mm.metrics._scorer import RetrievalScorer

__all__ = [
    "RetrievalRanks",
    "RetrievalScorer",
    "hit_at_k",
    "mean_rank",
    "median_rank",
    "recall_at_k",
    "retrieval_ranks",
    "retrieval_report",
]
