"""From a row a caption to a row a picture, before pictures are embedded to be scored."""

from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing

from sklearn_mm._checks import Captions, check_groups
from sklearn_mm._repeated import first_rows, pictures_of, warn_merged
from sklearn_mm._unreadable import MarkedFeatures
from sklearn_mm.metrics._ranks import check_weights

__all__ = ["merge_rows"]


def merge_rows(
    X: Any, captions: Captions, sample_weight: Any, groups: Any, stacklevel: int
) -> tuple[Any, Captions, Any, Any]:
    """Take the rows of one picture together; all is returned as it is where none is known to be repeated.

    Rows of different groups stay different images. The weight of a picture is the mean of its rows'.
    """
    first = first_rows(X)
    # Features of pictures that could not be read are refused by who embeds them, which has to see that they are.
    if first is None or (isinstance(X, MarkedFeatures) and X.failures):
        return X, captions, sample_weight, groups
    checked = check_groups(groups, len(first))
    rows, picture = pictures_of(first, checked)
    if len(rows) == len(first):
        return X, captions, sample_weight, groups
    warn_merged(len(first), len(rows), stacklevel + 1)
    weight = check_weights(sample_weight, len(first), "images")
    if weight is not None:
        weight = np.bincount(picture, weight) / np.bincount(picture)
    kept = X.view(np.ndarray) if isinstance(X, MarkedFeatures) else X
    return (
        _safe_indexing(kept, rows),
        captions.merge(picture, len(rows)),
        weight,
        None if checked is None else checked[rows],
    )
