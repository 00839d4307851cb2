"""Estimators that search pictures by sentences and sentences by pictures."""

from sklearn_mm.retrieval._correlation import CorrelationRanker
from sklearn_mm.retrieval._ensemble import RankerEnsemble
from sklearn_mm.retrieval._hubness import NearestNeighborNormalization
from sklearn_mm.retrieval._pipeline import make_search_pipeline
from sklearn_mm.retrieval._ranker import JointEmbeddingRanker
from sklearn_mm.retrieval.gallery import Gallery, SearchResult

__all__ = [
    "CorrelationRanker",
    "Gallery",
    "JointEmbeddingRanker",
    "NearestNeighborNormalization",
    "RankerEnsemble",
    "SearchResult",
    "make_search_pipeline",
]
