"""One modality's path into a network, as the estimators that train it drive it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone
from torch import Tensor, nn

from sklearn_mm._checks import as_features, check_finite_rows
from sklearn_mm._device import autocast
from sklearn_mm.nn.heads import unit_rows
from sklearn_mm.nn.towers import FeatureTower
from sklearn_mm.training import embed

__all__ = ["Tower", "feature_statistics", "fit_encoder", "is_trainable", "make_head"]

_EMBED_BATCH = 1024
_STATISTICS_BLOCK = 1024


def is_trainable(encoder: Any) -> bool:
    """Return whether an encoder offers the tower protocol; any other transformer is used frozen."""
    return hasattr(encoder, "initialize") and hasattr(encoder, "collate")


def _reads_images(encoder: Any) -> bool:
    return is_trainable(encoder) and bool(encoder.__sklearn_tags__().input_tags.three_d_array)


@dataclass(frozen=True)
class Tower:
    """An encoder and the head on top of it.

    Attributes
    ----------
    encoder : estimator or None
        A trainable encoder, a fitted transformer (frozen), or None for features as they come.
    head : Module
        From the encoder's output to the joint space.
    device, dtype : torch.device, torch.dtype
        Where and in which precision it computes.
    positive_only : bool
        Embeddings have no negative component: the joint space is one of order.
    """

    encoder: Any
    head: nn.Module
    device: torch.device
    dtype: torch.dtype
    positive_only: bool = False

    @property
    def modules(self) -> list[nn.Module]:
        """What is trained, in the order of the data."""
        return [self.encoder.module_, self.head] if is_trainable(self.encoder) else [self.head]

    @property
    def batch_size(self) -> int:
        """How many rows it takes at once in use: the maps of a thousand pictures would fill the memory."""
        return self.encoder.batch_size if _reads_images(self.encoder) else _EMBED_BATCH

    def prepare(self, data: Any) -> Any:
        """Do once what need not be done every epoch: words to ids, pictures through a frozen network."""
        if self.encoder is None:
            return data
        if is_trainable(self.encoder):
            return self.encoder.prepare(data)
        return _given_features(self.encoder, self.encoder.transform(data))

    def collate(self, rows: Any, rng: np.random.Generator | None = None) -> Any:
        """Make a batch of prepared rows on the device; with `rng`, one for training."""
        if is_trainable(self.encoder):
            batch = self.encoder.collate(rows, rng)
            if isinstance(batch, tuple):
                return type(batch)(*(part.to(self.device) for part in batch))
            return batch.to(self.device)
        dense = rows.toarray() if sparse.issparse(rows) else rows
        return torch.from_numpy(np.ascontiguousarray(dense)).to(self.device)

    def forward(self, batch: Any) -> Tensor:
        """Map a batch to the joint space, (n, n_components), not normalised."""
        with autocast(self.device, self.dtype):
            for module in self.modules:
                batch = module(batch)
        return batch

    def embed(self, rows: Any) -> np.ndarray:
        """Map prepared rows to unit vectors, (n, n_components) float32."""
        return embed(
            self.modules,
            self.collate,
            rows,
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
            finish=partial(unit_rows, positive_only=self.positive_only),
        )

    def to_cpu(self) -> None:
        """Leave the device."""
        for module in self.modules:
            module.cpu()


def fit_encoder(encoder: Any, data: Any, random_state: np.random.RandomState) -> tuple[Any, Any]:
    """Clone an encoder, and initialise (trainable) or fit (frozen) it on the training data.

    Parameters
    ----------
    encoder : estimator or None
    data : training images or texts
    random_state : RandomState

    Returns
    -------
    fitted : estimator or None
    rows : prepared training data

    Raises
    ------
    ValueError
        A frozen encoder gives no matrix, or NaN or infinity; the message names the rows.
    """
    if encoder is None:
        return None, data
    fitted = clone(encoder)
    if is_trainable(fitted):
        fitted.initialize(data, random_state)
        return fitted, fitted.prepare(data)
    _seed(fitted, random_state)
    return fitted, _given_features(fitted, fitted.fit_transform(data))


def _seed(encoder: Any, random_state: np.random.RandomState) -> None:
    """Draw a seed for each `random_state` of None in an encoder, so that the outer one decides on everything."""
    parameters = encoder.get_params(deep=True)
    unset = [name for name in sorted(parameters) if name.split("__")[-1] == "random_state" and parameters[name] is None]
    encoder.set_params(**{name: random_state.randint(2**31 - 1) for name in unset})


def make_head(
    fitted: Any,
    rows: Any,
    index: np.ndarray,
    *,
    n_components: int,
    hidden_layer_sizes: Sequence[int],
    dropout: float,
) -> nn.Module:
    """Build what stands between an encoder's output and the joint space, under torch's current random state.

    Parameters
    ----------
    fitted : estimator or None
        As `fit_encoder` returns it. A trainable encoder that is already as wide as the joint space needs no head.
    rows : prepared training data
    index : ndarray of int64
        The rows whose statistics standardise features.
    n_components, hidden_layer_sizes, dropout
        As in `FeatureTower`.
    """
    if not is_trainable(fitted):
        head = FeatureTower(rows.shape[1], n_components, hidden_layer_sizes=hidden_layer_sizes, dropout=dropout)
        head.standardize_by(*map(torch.from_numpy, feature_statistics(rows, index)))
        return head
    width = fitted._n_features_out
    if width == n_components and fitted.n_components is not None and not hidden_layer_sizes:
        return nn.Identity()
    head = FeatureTower(width, n_components, hidden_layer_sizes=hidden_layer_sizes, dropout=dropout)
    if hasattr(fitted, "output_statistics"):  # of features that were learnt elsewhere
        head.standardize_by(*fitted.output_statistics(rows[index]))
    return head


def _given_features(encoder: Any, output: Any) -> Any:
    """Return what a frozen encoder gave as features that can be trained on."""
    name = type(encoder).__name__
    X = as_features(output)
    if X.ndim != 2:
        raise ValueError(f"expected a matrix of features from {name}, a row for each input, got the shape {X.shape}")
    check_finite_rows(X, f"what {name} gave", "mend or drop these rows")
    return X


def feature_statistics(X: Any, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute what standardises some rows' features, two float32 arrays of shape (n_features,).

    Dense features get each its own mean and scale, in blocks without a float copy of the whole. Sparse ones are
    divided by one number, their root mean square, so that rare terms are not blown up.
    """
    n_features = X.shape[1]
    blocks = [index[start : start + _STATISTICS_BLOCK] for start in range(0, len(index), _STATISTICS_BLOCK)]
    if sparse.issparse(X):
        squares = sum(float((X[block].data.astype(np.float64) ** 2).sum()) for block in blocks)
        scale = np.sqrt(squares / (len(index) * n_features))
        return np.zeros(n_features, np.float32), np.full(n_features, scale, np.float32)
    mean = sum(X[block].sum(axis=0, dtype=np.float64) for block in blocks) / len(index)
    variance = sum(((X[block] - mean) ** 2).sum(axis=0) for block in blocks) / len(index)
    deviation = np.sqrt(variance)
    deviation[deviation <= 1e-6 * np.abs(mean)] = 0.0  # what is left of a constant is rounding
    return mean.astype(np.float32), deviation.astype(np.float32)
