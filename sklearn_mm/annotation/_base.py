"""The parameters of training that both estimators of annotation have."""

import os
from typing import Any

from sklearn.base import BaseEstimator

from sklearn_mm._params import (
    DEVICE_CONSTRAINTS,
    Integral,
    Interval,
    Real,
    StrOptions,
    non_negative_int,
    positive_int,
    positive_real,
)
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.training import OPTIMIZERS, SCHEDULES, StagedTrainingMixin

__all__ = ["AnnotationBase", "check_layer_sizes"]


class AnnotationBase(StagedTrainingMixin, PickleStateMixin, BaseEstimator):
    """An estimator of annotation."""

    _parameter_constraints: dict[str, Any] = {
        **DEVICE_CONSTRAINTS,
        "count_loss": [StrOptions({"regression", "classification"})],
        "count_hidden_layer_sizes": ["array-like"],
        "count_rounding": [StrOptions({"f1", "round", "floor"})],
        "max_epochs": [positive_int],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "learning_rate": [positive_real],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "lr_schedule": [StrOptions(set(SCHEDULES))],
        "clip_norm": [positive_real],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [positive_int],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "warm_start": ["boolean"],
        "checkpoint": [str, os.PathLike, None],
        "verbose": [non_negative_int, "boolean"],
    }


def check_layer_sizes(estimator: Any, name: str, least: int = 0) -> None:
    """Check a parameter that lists the sizes of hidden layers, at least so many."""
    sizes = getattr(estimator, name)
    if len(sizes) < least or not all(isinstance(size, Integral) and int(size) >= 1 for size in sizes):
        number = "at least one positive int" if least else "positive ints"
        raise ValueError(f"{name} must hold {number}, one for each hidden layer, got {sizes!r}")
