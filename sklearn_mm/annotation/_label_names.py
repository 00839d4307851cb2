"""What labels are called: what is known of one says something of others of like names, the more the rarer they are."""

from typing import Any

import numpy as np
from scipy import linalg, sparse
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from sklearn_mm._checks import as_features
from sklearn_mm.towers import is_trainable

__all__ = ["label_text", "name_likeness", "ready_encoder", "share_by_names", "unit_rows"]

_SCALE = 2.0  # of cosines; with 1 or 4 rare labels are found as well
_NOISE = 1.0  # variance of what one image says of a label, beside 1 between labels
_LEAST_TRUE = 1e-3  # images, of a label that has none: what labels of like names say is then all there is
_MAX_LABELS = 4096  # whose system of equations takes 130 MB and a second or two


def label_text(label: Any) -> str:
    """Write a label as a text encoder reads it."""
    return str(label).replace("_", " ")


def ready_encoder(encoder: Any, name: str) -> Any:
    """Return an encoder that a fit does not train, as a copy of the one given as a parameter of some name."""
    is_frozen = isinstance(encoder, FrozenEstimator)
    if not is_frozen and (hasattr(encoder, "transform_text") or is_trainable(encoder)):
        raise TypeError(
            f"{name} would have to be trained, which an annotator by names does not: fit the {type(encoder).__name__} "
            f"first, and pass FrozenEstimator(...) of it, or take a pretrained encoder with trainable='none'"
        )
    return clone(encoder)


def unit_rows(rows: Any) -> np.ndarray:
    """Bring rows to unit length, float32; a row of zeros stays one."""
    dense = np.asarray(rows.toarray() if sparse.issparse(rows) else rows, dtype=np.float32)
    lengths = np.linalg.norm(dense, axis=1, keepdims=True)
    unit: np.ndarray = dense / np.where(lengths > 0, lengths, 1)
    return unit


def name_likeness(labels: np.ndarray, encoder: Any) -> np.ndarray:
    """Tell how much labels are called alike.

    Parameters
    ----------
    labels : ndarray of shape (n_labels,)
    encoder : transformer
        From texts to vectors. A label of which it knows nothing, whose vector is 0, is like no other.

    Returns
    -------
    ndarray of shape (n_labels, n_labels), float64
        Above 0, and 1 for a label and itself.

    Raises
    ------
    ValueError
        Labels are numbers, or too many; or vectors are not finite.
    TypeError
        The encoder would have to be trained.
    """
    if not all(isinstance(label, str) for label in labels.tolist()):
        raise ValueError(
            f"name_encoder reads what labels are called, and {labels.tolist()[0]!r} is no word: give y as lists of "
            "words, or as a DataFrame with a column for each label"
        )
    if len(labels) > _MAX_LABELS:
        raise ValueError(f"name_encoder compares all labels, at most {_MAX_LABELS}, got {len(labels)}; set it to None")
    texts = [label_text(label) for label in labels.tolist()]
    vectors = unit_rows(as_features(ready_encoder(encoder, "name_encoder").fit(texts, None).transform(texts)))
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise ValueError(f"name_encoder gave a vector that is not finite for {texts[wrong[0]]!r}")
    there = vectors.any(axis=1)
    # What all names have in common tells none from another; encoders give all texts much of it.
    vectors[there] = unit_rows(vectors[there] - vectors[there].mean(axis=0)) if there.any() else 0
    likeness = np.exp(_SCALE * (vectors.astype(np.float64) @ vectors.T - 1))
    likeness[~there] = likeness[:, ~there] = 0
    np.fill_diagonal(likeness, 1)
    return likeness


def share_by_names(coef: np.ndarray, likeness: np.ndarray, n_true: np.ndarray) -> np.ndarray:
    """Let labels say something of others of like names: a Gaussian process over labels, on top of that over images.

    Parameters
    ----------
    coef : ndarray of shape (n_bank, n_labels), float32
        Of which scores of labels are linear, in standard deviations.
    likeness : ndarray of shape (n_labels, n_labels)
    n_true : ndarray of shape (n_labels,)
        How many images a label is true of: the variance of what they say of it falls with their number.

    Returns
    -------
    ndarray of shape (n_bank, n_labels), float32
    """
    noise = _NOISE / np.maximum(n_true.astype(np.float64), _LEAST_TRUE)
    factor = linalg.cho_factor(likeness + np.diag(noise), overwrite_a=True, check_finite=False)
    shared: np.ndarray = coef @ linalg.cho_solve(factor, likeness, check_finite=False).astype(np.float32)
    return shared
