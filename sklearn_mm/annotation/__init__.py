"""Estimators that label pictures, with as many labels as each deserves."""

from sklearn_mm.annotation._annotator import MultiLabelAnnotator
from sklearn_mm.annotation._count_predictor import LabelCountPredictor
from sklearn_mm.annotation._label_issues import LabelIssues, label_issues
from sklearn_mm.annotation._pipeline import make_annotation_pipeline
from sklearn_mm.annotation._zero_shot import ZeroShotAnnotator

__all__ = [
    "LabelCountPredictor",
    "LabelIssues",
    "MultiLabelAnnotator",
    "ZeroShotAnnotator",
    "label_issues",
    "make_annotation_pipeline",
]
