"""Losses on score matrices: they see scores and masks, never a model."""

from sklearn_mm.losses._contrastive import infonce_loss
from sklearn_mm.losses._instance import instance_loss
from sklearn_mm.losses._labels import asymmetric_label_loss, binary_label_loss, softmax_label_loss
from sklearn_mm.losses._negatives import NEGATIVES
from sklearn_mm.losses._pairs import PairScores
from sklearn_mm.losses._ranking import ranking_loss
from sklearn_mm.losses._similarity import SIMILARITIES, cosine_scores, order_root_scores, order_scores

__all__ = [
    "NEGATIVES",
    "SIMILARITIES",
    "PairScores",
    "asymmetric_label_loss",
    "binary_label_loss",
    "cosine_scores",
    "infonce_loss",
    "instance_loss",
    "order_root_scores",
    "order_scores",
    "ranking_loss",
    "softmax_label_loss",
]
