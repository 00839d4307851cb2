"""The overall F1 of predictions against labels as a user gives them."""

import warnings
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_mm.annotation._labels import GivenLabels, shown
from sklearn_mm.exceptions import LabelWarning

__all__ = ["overall_f1"]


def overall_f1(chosen: Any, given: GivenLabels, classes: np.ndarray, weight: np.ndarray) -> float:
    """Compute the overall F1 of predicted labels; 1 where there are none, neither predicted nor true.

    Parameters
    ----------
    chosen : csr_array of shape (n_images, n_classes), float64
        1 where a label is predicted.
    given : GivenLabels
        What is true. A label that is none of the classes counts as missed, with a `LabelWarning`.
    classes : ndarray of shape (n_classes,)
    weight : ndarray of shape (n_images,), float64
    """
    truth, unknown = given.among(classes)
    if len(unknown):
        warnings.warn(
            f"{len(unknown)} labels of y were not there in training and count as missed: "
            f"{shown(given.classes[unknown])}",
            LabelWarning,
            stacklevel=3,
        )
    not_known = np.isnan(truth.data)
    true, missing = (
        sparse.csr_array((data, truth.indices, truth.indptr), shape=truth.shape) for data in (~not_known, not_known)
    )
    n_correct = (chosen * true).sum(axis=1)
    n_chosen = (chosen - chosen * missing).sum(axis=1)
    n_true = (given.matrix == 1).sum(axis=1)
    total = weight @ (n_chosen + n_true)
    return float(2 * weight @ n_correct / total) if total > 0 else 1.0
