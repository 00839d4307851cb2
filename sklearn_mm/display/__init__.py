"""Draw what a sentence finds, how often it is right, what a picture is labelled, and how training went."""

from sklearn_mm.display._annotation_grid import AnnotationGridDisplay
from sklearn_mm.display._recall_curve import RecallCurveDisplay
from sklearn_mm.display._retrieval_grid import RetrievalGridDisplay
from sklearn_mm.display._training_history import TrainingHistoryDisplay

__all__ = ["AnnotationGridDisplay", "RecallCurveDisplay", "RetrievalGridDisplay", "TrainingHistoryDisplay"]
