"""The columns of X: which are tags, and which features or pictures."""

import re
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_array

from sklearn_mm._checks import did_you_mean
from sklearn_mm._tables import frame_column, frame_names, frame_part, shown
from sklearn_mm._unicode import normal_form, normal_label

__all__ = ["split_columns", "split_frame", "tag_mask"]


def tag_mask(tag_features: Any, n_features: int, names: np.ndarray | None) -> np.ndarray:
    """Mark the columns of tags, shape (n_features,), bool.

    Parameters
    ----------
    tag_features : None, slice, str, or array-like of bool, int or str
        As `MultiLabelAnnotator` takes it.
    n_features : int
    names : ndarray of shape (n_features,) or None
        Of the columns, where X has some.

    Raises
    ------
    ValueError
        A column does not exist, or the mask is of another length; the message names it.
    TypeError
        Columns are given by name, but have none, or by anything else.
    """
    mask = np.zeros(n_features, dtype=bool)
    if tag_features is None:
        return mask
    if isinstance(tag_features, slice):
        if any(isinstance(bound, str) for bound in (tag_features.start, tag_features.stop)):
            raise TypeError(f"tag_features must be a slice of column numbers, got {tag_features}")
        mask[tag_features] = True
        if not mask.any():  # numpy takes slices beyond the end without a word
            raise ValueError(f"tag_features={tag_features} takes no column of the {n_features} that X has")
        return mask
    if isinstance(tag_features, str):
        return _mask_of_pattern(tag_features, names)
    wanted = np.asarray(tag_features)
    if wanted.ndim != 1 or wanted.dtype.kind not in "bifuUO" or wanted.size == 0:
        raise TypeError(
            "tag_features must be a slice, a mask, or a list of column numbers or names with at least one column, got "
            f"{shown(tag_features)}"
        )
    if wanted.dtype.kind == "b":
        if len(wanted) != n_features:
            raise ValueError(f"tag_features is a mask of {len(wanted)} columns, but X has {n_features}")
        return wanted.astype(bool)
    if wanted.dtype.kind in "UO":
        return _mask_of_names(wanted, mask, names)
    # Counted from the end, a column would be another one once X is wider; 2.0 is a number of a column, 2.5 is none.
    missing = wanted[(wanted < 0) | (wanted >= n_features) | (wanted % 1 != 0)]
    if len(missing):
        raise ValueError(f"tag_features names column {missing[0]}, but X has columns 0 to {n_features - 1}")
    mask[wanted.astype(np.int64)] = True
    return mask


def _mask_of_names(wanted: np.ndarray, mask: np.ndarray, names: np.ndarray | None) -> np.ndarray:
    place = {normal_label(name): column for column, name in enumerate(_require_names(names))}
    for name in map(normal_label, wanted.tolist()):
        if name not in place:
            hint = did_you_mean(str(name), map(str, place))
            raise ValueError(f"tag_features names the column {shown(name)}, which X does not have; {hint}")
        mask[place[name]] = True
    return mask


def _mask_of_pattern(pattern: str, names: np.ndarray | None) -> np.ndarray:
    try:
        expression = re.compile(normal_form(pattern))
    except re.error as error:
        raise ValueError(f"tag_features={pattern!r} is no regular expression: {error}") from error
    names = _require_names(names)
    mask = np.array([expression.fullmatch(normal_form(str(name))) is not None for name in names])
    if not mask.any():
        hint = did_you_mean(pattern, map(str, names))
        raise ValueError(f"tag_features={pattern!r} matches no column of X in full; {hint}")
    return mask


def _require_names(names: np.ndarray | None) -> np.ndarray:
    if names is None:
        raise TypeError("tag_features are given by name, but X has no column names; give X as a DataFrame")
    return names


def split_columns(X: Any, is_tag: np.ndarray) -> tuple[Any, Any]:
    """Split a matrix into features and tags.

    Parameters
    ----------
    X : ndarray or csr_array of shape (n, n_features)
    is_tag : ndarray of shape (n_features,), bool

    Returns
    -------
    features : ndarray or csr_array, or None where there are none
        A view of a dense X, if its columns stand together.
    tags : csr_array, float32, or None
    """
    if not is_tag.any():
        return X, None
    tags = sparse.csr_array(X[:, _columns(is_tag)], dtype=np.float32)  # a branch of tags sees only those that are there
    if is_tag.all():
        return None, tags
    features = X[:, _columns(~is_tag)]
    return sparse.csr_array(features) if sparse.issparse(features) else features, tags


def split_frame(X: Any, is_tag: np.ndarray) -> tuple[Any, Any]:
    """Split a frame into its one column of pictures, a Series, and tags.

    Raises
    ------
    ValueError
        There is no column of pictures, or more than one; or tags are no finite numbers.
    """
    pictures = np.flatnonzero(~is_tag)
    if len(pictures) != 1:
        named = ", ".join(map(shown, frame_names(X)[pictures[:5]].tolist()))
        raise ValueError(f"expected one column of pictures beside the tags, got {len(pictures)}: {named}")
    # The pictures keep the frame from being checked as a whole.
    tags = check_array(frame_part(X, np.flatnonzero(is_tag)), dtype=np.float32, input_name="tags")
    return frame_column(X, int(pictures[0])), sparse.csr_array(tags)


def _columns(mask: np.ndarray) -> Any:
    """Return marked columns as a slice, if they stand together, as they mostly do."""
    columns = np.flatnonzero(mask)
    # A slice of a dense X is a view, a list of columns a copy of it.
    if columns[-1] - columns[0] + 1 == len(columns):
        return slice(int(columns[0]), int(columns[-1]) + 1)
    return columns
