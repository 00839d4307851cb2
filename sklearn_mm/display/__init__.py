"""Draw what a sentence finds, how often it is right, and how training went."""

from sklearn_mm.display._recall_curve import RecallCurveDisplay
from sklearn_mm.display._retrieval_grid import RetrievalGridDisplay
from sklearn_mm.display._training_history import TrainingHistoryDisplay

__all__ = ["RecallCurveDisplay", "RetrievalGridDisplay", "TrainingHistoryDisplay"]
