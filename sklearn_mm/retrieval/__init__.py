"""Estimators that search pictures by sentences and sentences by pictures."""

from sklearn_mm.retrieval._correlation import CorrelationRanker
from sklearn_mm.retrieval._ensemble import RankerEnsemble
from sklearn_mm.retrieval._hubness import NearestNeighborNormalization
from sklearn_mm.retrieval._ranker import JointEmbeddingRanker

__all__ = ["CorrelationRanker", "JointEmbeddingRanker", "NearestNeighborNormalization", "RankerEnsemble"]
