"""Estimators that label pictures, with as many labels as each deserves."""

from sklearn_mm.annotation._annotator import MultiLabelAnnotator
from sklearn_mm.annotation._count_predictor import LabelCountPredictor
from sklearn_mm.annotation._pipeline import make_annotation_pipeline

__all__ = ["LabelCountPredictor", "MultiLabelAnnotator", "make_annotation_pipeline"]
