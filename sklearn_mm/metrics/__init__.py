"""How good rankings and annotations are: exact ranks, the published numbers, and scorers."""

from sklearn_mm.metrics._annotation import annotation_report, format_annotation_report
from sklearn_mm.metrics._annotation_scorer import AnnotationScorer
from sklearn_mm.metrics._compare import Comparison, compare
from sklearn_mm.metrics._every_positive import map_at_r, ndcg_at_k
from sklearn_mm.metrics._label_sums import choose_top as choose_top
from sklearn_mm.metrics._named_scorers import named_scorers
from sklearn_mm.metrics._ranking import check_offsets as check_offsets
from sklearn_mm.metrics._ranking import check_retrieval_input as check_retrieval_input
from sklearn_mm.metrics._ranking import check_wording as check_wording
from sklearn_mm.metrics._ranking import rank_directions as rank_directions
from sklearn_mm.metrics._ranking import retrieval_ranks
from sklearn_mm.metrics._ranks import (
    RetrievalRanks,
    hit_at_k,
    mean_rank,
    median_rank,
    recall_at_k,
)
from sklearn_mm.metrics._ranks import check_cutoff as check_cutoff
from sklearn_mm.metrics._report import DIRECTIONS as DIRECTIONS
from sklearn_mm.metrics._report import check_report_options as check_report_options
from sklearn_mm.metrics._report import retrieval_report
from sklearn_mm.metrics._scorer import RetrievalScorer
from sklearn_mm.metrics._scorer import embed_captions as embed_captions
from sklearn_mm.metrics._scorer import hub_offsets as hub_offsets
from sklearn_mm.metrics._scorer import unwrap_ranker as unwrap_ranker
from sklearn_mm.metrics._similarity import check_embedding as check_embedding
from sklearn_mm.metrics._similarity import exact_unit_rows as exact_unit_rows
from sklearn_mm.metrics._similarity import resolve_similarity as resolve_similarity
from sklearn_mm.metrics._similarity import unit_rows as unit_rows

__all__ = [
    "AnnotationScorer",
    "Comparison",
    "RetrievalRanks",
    "RetrievalScorer",
    "annotation_report",
    "compare",
    "format_annotation_report",
    "hit_at_k",
    "map_at_r",
    "mean_rank",
    "median_rank",
    "named_scorers",
    "ndcg_at_k",
    "recall_at_k",
    "retrieval_ranks",
    "retrieval_report",
]
