"""Losses: objects that hold parameters, over functions of scores and masks. None of them sees a model."""

from collections.abc import Mapping

from sklearn_mm.losses._base import LabelLoss, PairLoss, by_short_name
from sklearn_mm.losses._base import resolve_loss as resolve_loss
from sklearn_mm.losses._contrastive import InfoNCELoss, infonce_loss
from sklearn_mm.losses._instance import InstanceClassifier as InstanceClassifier
from sklearn_mm.losses._instance import InstanceLoss, instance_loss, mean_instance_loss
from sklearn_mm.losses._labels import (
    AsymmetricLoss,
    BinaryLoss,
    SoftmaxLoss,
    asymmetric_label_loss,
    binary_label_loss,
    softmax_label_loss,
)
from sklearn_mm.losses._negatives import NEGATIVES as NEGATIVES
from sklearn_mm.losses._pairs import PairScores
from sklearn_mm.losses._ranking import RankingLoss, ranking_loss
from sklearn_mm.losses._sigmoid import SigmoidLoss
from sklearn_mm.losses._similarity import SIMILARITIES as SIMILARITIES
from sklearn_mm.losses._similarity import cosine_scores, order_root_scores, order_scores

__all__ = [
    "AsymmetricLoss",
    "BinaryLoss",
    "InfoNCELoss",
    "InstanceLoss",
    "LabelLoss",
    "PairLoss",
    "PairScores",
    "RankingLoss",
    "SigmoidLoss",
    "SoftmaxLoss",
    "asymmetric_label_loss",
    "binary_label_loss",
    "cosine_scores",
    "infonce_loss",
    "instance_loss",
    "mean_instance_loss",
    "order_root_scores",
    "order_scores",
    "ranking_loss",
    "softmax_label_loss",
]

PAIR_LOSSES: Mapping[str, type[PairLoss]] = by_short_name(InfoNCELoss, RankingLoss, SigmoidLoss)
LABEL_LOSSES: Mapping[str, type[LabelLoss]] = by_short_name(AsymmetricLoss, BinaryLoss, SoftmaxLoss)
