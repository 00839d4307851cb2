"""One modality's path into a network, as the estimators that train it drive it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone
from torch import Tensor, nn

from sklearn_mm._checks import as_features, check_finite_rows
from sklearn_mm._device import autocast
from sklearn_mm._unreadable import n_pictures_of, raise_unreadable, refuse_unreadable, take_readable
from sklearn_mm.nn.heads import unit_rows
from sklearn_mm.nn.towers import FeatureTower, ResidualHead
from sklearn_mm.towers._batch import take_rows
from sklearn_mm.towers._chunks import chunks_of, pass_in_chunks
from sklearn_mm.towers._embed import embed, n_rows_of
from sklearn_mm.towers._moments import column_statistics
from sklearn_mm.towers._protocol import is_trainable
from sklearn_mm.towers._trainable import TrainableEncoder

__all__ = ["Tower", "fit_encoder", "fit_image_encoder", "make_head", "output_width"]

_EMBED_BATCH = 1024  # rows of features: a few MB


class Tower(nn.Module):
    """An encoder and the head on top of it: prepared rows go in as batches, and come out as rows of the joint space.

    Parameters
    ----------
    encoder : estimator or None
        A trainable encoder, whose `module_` becomes a part of the tower; a fitted transformer (frozen), or None for
        features as they come.
    head : Module
        From the encoder's output to the joint space.
    device, dtype : torch.device, torch.dtype
        Where and in which precision it computes.
    positive_only : bool
        Embeddings have no negative component: the joint space is one of order.
    """

    def __init__(
        self, encoder: Any, head: nn.Module, device: torch.device, dtype: torch.dtype, positive_only: bool = False
    ) -> None:
        super().__init__()
        self.encoder = encoder
        # An estimator is no module: its network has to be one of the tower's to be found by optimisers, checkpoints and
        # `to`.
        self.body = encoder.module_ if is_trainable(encoder) else None
        self.head = head
        self.device, self.dtype = device, dtype
        self._positive_only = positive_only

    def forward(self, batch: Any) -> Tensor:
        """Map a batch on the device to the joint space, (n, n_components), not normalised."""
        return self._through_head(self._through_body(batch))

    def forward_in_chunks(self, batch: Any, n_rows: int, chunk_size: int | None) -> Tensor:
        """Do as `forward` with a batch of `n_rows`, so many of them at a time in a trained encoder; None for all.

        The head sees the whole batch: what it keeps for its gradient is small beside a network's, and a batch norm in
        it has the same statistics.
        """
        if self.body is None or chunk_size is None or n_rows <= chunk_size:
            out: Tensor = self(batch)
            return out
        encoded = pass_in_chunks(
            lambda rows: self._through_body(take_rows(batch, rows)),
            [rows.to(self.device) for rows in chunks_of(n_rows, chunk_size)],
            self.body,
            self.device,
        )
        return self._through_head(encoded)

    def _through_body(self, batch: Any) -> Any:
        if self.body is None:
            return batch
        with autocast(self.device, self.dtype):
            return self.body(batch)

    def _through_head(self, features: Any) -> Tensor:
        with autocast(self.device, self.dtype):
            out: Tensor = self.head(features)
            return out

    def freeze_pretrained(self, frozen: bool) -> None:
        """Hold still what a trained encoder was given pretrained, or let it learn as its parameters say."""
        if is_trainable(self.encoder):
            self.encoder.freeze_pretrained(frozen)

    # The way of the data ------------------------------------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """How many rows it takes at once in use."""
        return self.encoder.embed_batch_size if is_trainable(self.encoder) else _EMBED_BATCH

    def prepare(self, data: Any) -> Any:
        """Do once what need not be done every epoch: words to ids, pictures through a frozen network.

        Raises
        ------
        ImageReadError
            A picture cannot be read, whatever the encoder's `on_error` says: rows come out as they go in.
        """
        if self.encoder is None:
            refuse_unreadable(data)
            return data
        if is_trainable(self.encoder):
            return self.encoder.prepare(data)
        output = self.encoder.transform(data)
        refuse_unreadable(output)
        rows, kept = _given_features(self.encoder, output, n_rows_of(data))
        if len(kept) < n_rows_of(data):
            raise_unreadable(_failures_of(self.encoder))
        return rows

    def prepare_readable(self, data: Any) -> tuple[Any, np.ndarray]:
        """Prepare what can be read, where the encoder's `on_error` allows for more; and say where it stood in the data.

        Returns
        -------
        rows : prepared rows
        kept : ndarray of shape (n_rows,), int64
        """
        if self.encoder is None:
            rows, kept = take_readable(data)
            return rows, np.arange(n_rows_of(rows)) if kept is None else kept
        if is_trainable(self.encoder):
            readable, kept = _readable(self.encoder, data)
            return self.encoder.prepare(readable), kept
        return _given_features(self.encoder, self.encoder.transform(data), n_rows_of(data))

    def collate(self, rows: Any, rng: np.random.Generator | None = None) -> Any:
        """Make a batch of prepared rows, on the CPU; with `rng`, one for training."""
        if is_trainable(self.encoder):
            return self.encoder.collate(rows, rng)
        dense = rows.toarray() if sparse.issparse(rows) else rows
        # As it came: int8 features cross to the device as bytes, and become float32 in the head.
        # A batch of a memory map that joblib opened is copied: torch wants to be able to write.
        return torch.from_numpy(np.require(dense, requirements=["C", "W"]))

    def embed(self, rows: Any) -> np.ndarray:
        """Map prepared rows to unit vectors, (n, n_components) float32."""
        return embed(
            self,
            self.collate,
            rows,
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
            finish=partial(unit_rows, positive_only=self._positive_only),
        )


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
        A frozen encoder gives no matrix, another number of rows, or NaN or infinity; the message names the rows.
    """
    fitted, rows, kept = fit_image_encoder(encoder, data, random_state)
    if len(kept) < n_rows_of(data):
        raise_unreadable(_failures_of(fitted))
    return fitted, rows


def fit_image_encoder(encoder: Any, data: Any, random_state: np.random.RandomState) -> tuple[Any, Any, np.ndarray]:
    """Do as `fit_encoder`, without the pictures that an encoder could not read and its `on_error` lets pass.

    Returns
    -------
    fitted : estimator or None
    rows : prepared training data
    kept : ndarray of shape (n_rows,), int64
        Where each row stood in the data.
    """
    if encoder is None:
        rows, kept = take_readable(data)
        return None, rows, np.arange(n_rows_of(rows)) if kept is None else kept
    fitted = clone(encoder)
    if is_trainable(fitted):
        readable, kept = _readable(fitted, data)
        fitted.initialize(readable, random_state)
        return fitted, fitted.prepare(readable), kept
    # Only a frozen encoder: `initialize` is given the random state itself.
    _seed(fitted, random_state)
    # fit_transform, as two calls would send a pretrained network over the data twice; a FrozenEstimator has none.
    output = fitted.fit_transform(data) if hasattr(fitted, "fit_transform") else fitted.fit(data, None).transform(data)
    return fitted, *_given_features(fitted, output, n_rows_of(data))


def _readable(encoder: Any, data: Any) -> tuple[Any, np.ndarray]:
    # An encoder of one's own need not know of pictures that cannot be read.
    if isinstance(encoder, TrainableEncoder):
        return encoder.readable(data)
    return data, np.arange(n_rows_of(data))


def _failures_of(encoder: Any) -> list[Any]:
    """Return what an encoder, or a step of a pipeline, says that it could not read in its last call."""
    if hasattr(encoder, "steps"):
        return [failure for _, step in encoder.steps for failure in _failures_of(step)]
    return list(getattr(encoder, "errors_", ()))


def _seed(encoder: Any, random_state: np.random.RandomState) -> None:
    """Draw a seed for each `random_state` of None in an encoder, so that the outer one decides on everything."""
    parameters = encoder.get_params(deep=True)
    unset = [name for name in sorted(parameters) if name.split("__")[-1] == "random_state" and parameters[name] is None]
    encoder.set_params(**{name: random_state.randint(2**31 - 1) for name in unset})


def output_width(fitted: Any, rows: Any) -> int:
    """Return how many columns an encoder gives, as `fit_encoder` returns it with its rows."""
    return int(fitted.n_features_out if is_trainable(fitted) else rows.shape[1])


def make_head(
    fitted: Any,
    rows: Any,
    index: np.ndarray,
    *,
    n_components: int,
    hidden_layer_sizes: Sequence[int],
    dropout: float,
    residual: bool = False,
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
    residual : bool
        Start as the identity, with a joint space as wide as the encoder's output, whatever `n_components` says.
    """
    if residual:
        width = output_width(fitted, rows)
        return ResidualHead(width, hidden_layer_sizes=hidden_layer_sizes, dropout=dropout)
    if is_trainable(fitted):
        # Statistics only of what was learnt elsewhere: an output that training changes would soon have others.
        width, statistics = fitted.n_features_out, fitted.output_statistics(rows[index])
        if statistics is None and width == n_components and not hidden_layer_sizes:
            return nn.Identity()
    else:
        width, statistics = rows.shape[1], column_statistics(rows, index)
    head = FeatureTower(width, n_components, hidden_layer_sizes=hidden_layer_sizes, dropout=dropout)
    if statistics is not None:
        head.standardize_by(*statistics)
    return head


def _given_features(encoder: Any, output: Any, n_inputs: int) -> tuple[Any, np.ndarray]:
    """Return what a frozen encoder gave as features that can be trained on, and the input that each row is of."""
    name = type(encoder).__name__
    X, kept = take_readable(output)
    X = as_features(X)
    if X.ndim != 2:
        raise ValueError(f"expected a matrix of features from {name}, a row for each input, got the shape {X.shape}")
    n_answered = X.shape[0] if kept is None else n_pictures_of(output)
    if n_answered < n_inputs:
        # Behind an embedding that leaves pictures out, other steps of a pipeline do not say so.
        kept = np.setdiff1d(np.arange(n_inputs), [failure[0] for failure in _failures_of(encoder)])
        n_answered = n_inputs if len(kept) == n_answered else n_answered
    if n_answered != n_inputs:
        raise ValueError(
            f"expected a row of features for each input from {name}, got {n_answered} rows for {n_inputs}; rows that "
            "it leaves out have to be left out of the data before"
        )
    check_finite_rows(X, f"what {name} gave", "mend or drop these rows")
    return X, np.arange(n_inputs) if kept is None else kept
