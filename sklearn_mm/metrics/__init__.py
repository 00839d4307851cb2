"""How good rankings and annotations are: exact ranks, the published numbers, and scorers."""

from sklearn_mm.metrics._annotation import annotation_report, format_annotation_report
from sklearn_mm.metrics._annotation_scorer import AnnotationScorer
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
    "AnnotationScorer",
    "RetrievalRanks",
    "RetrievalScorer",
    "annotation_report",
    "format_annotation_report",
    "hit_at_k",
    "mean_rank",
    "median_rank",
    "recall_at_k",
    "retrieval_ranks",
    "retrieval_report",
]
