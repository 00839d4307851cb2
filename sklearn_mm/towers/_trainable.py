"""What every encoder that trains has in common: fit, transform, and training on its own by instance loss."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional

from sklearn_mm._device import (
    autocast,
    forked_rng,
    generator_from,
    precision_of,
    resolve_device,
    resolve_dtype,
    settle,
    torch_threads,
)
from sklearn_mm._params import (
    DEVICE_CONSTRAINTS,
    Integral,
    Interval,
    Real,
    a_path,
    non_negative_int,
    positive_int,
    positive_real,
    validate_params,
)
from sklearn_mm._tables import as_rows, is_missing, shown
from sklearn_mm.losses import InstanceClassifier
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.registry import stored_as
from sklearn_mm.sampling import n_batches, row_batches
from sklearn_mm.towers._embed import embed, n_rows_of
from sklearn_mm.training import (
    EpochCallbacks,
    EpochRecord,
    Stage,
    TrainingSettings,
    identify_run,
    open_checkpoint,
    train,
)

__all__ = ["TrainableEncoder"]

_CLIP_NORM = 2.0  # the ranker's default
_NAMED_AT_ONCE = 1024  # rows whose scores over all instances are held at once


@stored_as("towers.TrainableEncoder")
# PickleStateMixin before BaseEstimator, whose __getstate__ and __setstate__ it calls.
class TrainableEncoder(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, PickleStateMixin, BaseEstimator
):
    """An encoder that trains: alone, or inside of a ranker or an annotator.

    A subclass stores its parameters, and says in three methods what makes it differ: `initialize` builds `module_`,
    `prepare` turns data into rows, `collate` turns some rows into a batch for `module_`. The other members of
    `TowerEncoder` have answers here. A parameter of training that a subclass does not take has the value below.

    Parameters
    ----------
    n_components : int
        Width of the output of `module_`; a subclass that has no such parameter overrides `n_features_out`.

    Attributes
    ----------
    module_ : Module
    history_ : list of dict
        One record an epoch: ``epoch``, ``stage``, ``train_loss``, ``learning_rate``, ``seconds`` and, with rows held
        out, ``val_accuracy``.
    precision_ : str
        In which `fit` has computed, and in which what is fitted goes on under ``precision="auto"``.

    See Also
    --------
    TowerEncoder : What a ranker or an annotator asks of an encoder.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_mm.towers import TrainableEncoder
    >>> class LetterEncoder(TrainableEncoder):
    ...     def __init__(self, n_components=8, max_epochs=5):
    ...         self.n_components = n_components
    ...         self.max_epochs = max_epochs
    ...
    ...     def initialize(self, data, random_state=None):
    ...         self.module_ = torch.nn.Linear(26, self.n_components)
    ...         return self
    ...
    ...     def prepare(self, data):
    ...         letters = "abcdefghijklmnopqrstuvwxyz"
    ...         return np.array([[text.count(letter) for letter in letters] for text in data], dtype=np.float32)
    ...
    ...     def collate(self, rows, rng=None):
    ...         return torch.from_numpy(rows)
    >>> LetterEncoder().fit(["ab", "ba", "cd", "dc"], y=[0, 0, 1, 1]).transform(["abc"]).shape
    (1, 8)
    """

    _parameter_constraints: dict[str, Any] = {
        **DEVICE_CONSTRAINTS,
        "max_epochs": [positive_int],
        "batch_size": [positive_int],
        "learning_rate": [positive_real],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "temperature": [positive_real],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [positive_int],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "checkpoint": [a_path, None],
        "verbose": [non_negative_int, "boolean"],
    }

    trains = True
    module_: Any
    history_: list[EpochRecord]

    max_epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    temperature: float = 0.05
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 5
    random_state: Any = None
    device: Any = "auto"
    precision: str = "auto"
    n_jobs: int | None = None
    checkpoint: str | os.PathLike[str] | None = None
    verbose: int = 0

    # The tower protocol -------------------------------------------------------------------------------------------

    def initialize(self, data: Any, random_state: Any = None) -> Self:
        """Learn what has to be known of the training data, and make an untrained `module_`.

        Parameters
        ----------
        data : sequence
            Of what `fit` takes.
        random_state : int, RandomState or None
            From which weights are drawn.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it is initialised")

    def prepare(self, data: Any) -> Any:
        """Do once what need not be done for every batch; return rows: ``len(rows)``, ``rows[slice or int array]``."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it prepares")

    def collate(self, rows: Any, rng: np.random.Generator | None = None) -> Any:
        """Make a batch for `module_` of some rows; with `rng`, one for training."""
        raise NotImplementedError(f"{type(self).__name__} does not say what a batch is")

    def readable(self, data: Any) -> tuple[Any, np.ndarray]:
        """Return the part of the data that can be learnt from, for `initialize` and `prepare`, and its rows.

        All of it, unless an encoder can tell beforehand that it cannot read some, and has a parameter that says so.

        Parameters
        ----------
        data : sequence
            Of what `fit` takes.

        Returns
        -------
        readable : sequence
            What `initialize` and `prepare` take.
        rows : ndarray of shape (n_readable,), int64
            Where each row stood in the data.
        """
        return data, np.arange(n_rows_of(data))

    @property
    def n_features_out(self) -> int:
        """Width of the embedding."""
        check_is_fitted(self, "module_")
        return int(self.n_components)

    @property
    def embed_batch_size(self) -> int:
        """Rows embedded at once."""
        return 1024

    def output_statistics(self, rows: Any) -> tuple[Tensor, Tensor] | None:
        """Return mean and scale of an output that was learnt elsewhere; None, as this one is learnt here."""
        return None

    def freeze_pretrained(self, frozen: bool) -> None:
        """Hold still what came pretrained: nothing did."""

    def learn_as(self, asked: Any, random_state: Any = None) -> bool:
        """Let learn from now on what the parameters of `asked` say; return whether that is new. Here it never is.

        Parameters
        ----------
        asked : estimator or None
            The encoder as whoever trains this one holds it, not fitted.
        random_state : int, RandomState or None
            From which new weights are drawn.
        """
        return False

    # scikit-learn -------------------------------------------------------------------------------------------------

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Initialise the network, and train it by instance loss.

        Parameters
        ----------
        X : sequence of length n
            Texts or pictures, as `transform` takes them.
        y : sequence of hashables, length n, optional
            The instance that each row describes or shows; a list counts as the tuple of its entries, and several
            columns of a frame as that of their cells.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Lengths differ; or, with `early_stopping`, no instance has two rows.
        FloatingPointError
            Training diverged.
        """
        self._check_parameters()
        data = self._check_data(X)
        instance = self._instances_of(y, n_rows_of(data))
        identity, random_state = identify_run(
            self.checkpoint,
            self.random_state,
            type(self).__name__,
            self.get_params(deep=False),
            self._identified(data),
            instance,
        )
        device = resolve_device(self.device)
        self.precision_ = precision_of(resolve_dtype(self.precision, device))
        with torch_threads(self.n_jobs), forked_rng(random_state):
            readable, kept = self.readable(data)
            self.initialize(readable, random_state)
            rows = self.prepare(readable)
            if instance is not None and len(kept) < len(instance):
                instance = as_instances(instance[kept].tolist(), len(kept))  # no class of rows that are left out
            # Of this fit alone, also where nothing is trained.
            self.history_ = []
            # Under a network that holds still the classifier alone would train, which is not kept.
            if instance is not None and any(parameter.requires_grad for parameter in self.module_.parameters()):
                self._train(rows, instance, generator_from(random_state), device, identity)
        # Left in place and in evaluation mode: a query then moves no module, and threads may ask at once.
        settle(self.module_, device)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Embed rows.

        Parameters
        ----------
        X : sequence of length n
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, n_features_out), float32
            Not normalised.
        """
        check_is_fitted(self, "module_")
        return self._embed(self.prepare(X), shown=self.verbose)

    def _embed(self, rows: Any, collate: Callable[[Any], Any] | None = None, *, shown: int = 0) -> np.ndarray:
        device = resolve_device(self.device)
        with torch_threads(self.n_jobs):
            return embed(
                self.module_,
                self.collate if collate is None else collate,
                rows,
                batch_size=self.embed_batch_size,
                device=device,
                # A model saved before it was noted has none, nor has an encoder that another estimator has trained.
                dtype=resolve_dtype(self.precision, device, getattr(self, "precision_", None)),
                title=type(self).__name__ if shown else None,
            )

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out

    @classmethod
    def _from_format(cls, state: dict[str, Any], number: int) -> dict[str, Any]:
        """Bring the state of an older format to today's: some parameters were not there, the width was stored."""
        if number >= 2:
            return state
        named = {name: value for name, value in state.items() if name != "_n_features_out"}
        # What these classes lacked in format 1 did not happen then: the defaults say the same.
        added = ("early_stopping", "validation_fraction", "n_iter_no_change", "checkpoint")
        return {**{name: getattr(TrainableEncoder, name) for name in added}, **named}

    # What a family of encoders may say otherwise ------------------------------------------------------------------

    def _check_parameters(self) -> None:
        validate_params(self)

    def _check_data(self, X: Any) -> Any:
        """Check what `fit` was given, before any long work."""
        return X

    def _identified(self, data: Any) -> Any:
        """Return what tells the data of a run from others."""
        return data

    def _instances_of(self, y: Any, n_rows: int) -> np.ndarray | None:
        """Number the instances, (n_rows,) int64; without y each row is one of its own. None trains nothing."""
        return np.arange(n_rows) if y is None else as_instances(y, n_rows)

    # Training alone -----------------------------------------------------------------------------------------------

    def _train(
        self, rows: Any, instance: np.ndarray, rng: np.random.Generator, device: torch.device, identity: str | None
    ) -> None:
        settings = TrainingSettings(
            device=device,
            dtype=resolve_dtype(self.precision, device),
            weight_decay=self.weight_decay,
            clip_norm=_CLIP_NORM,
            n_iter_no_change=self.n_iter_no_change,
            verbose=self.verbose,
        )
        # A class for each instance, also those of rows held out: of each a row is learnt.
        classifier = InstanceClassifier(
            self.n_features_out, int(instance.max()) + 1, temperature=self.temperature, dropout=0.0
        )
        model = _InstanceModel(self.module_, classifier, settings)
        learnt, validate = np.arange(len(instance)), None
        if self.early_stopping:
            # Held out are rows, not instances as in a ranker: the classifier names only instances that it was taught.
            learnt, held_out = _split(instance, self.validation_fraction, rng)
            validate = partial(self._accuracy, classifier, rows[held_out], instance[held_out])
        stage = Stage(
            "instance",
            model,
            _InstanceBatches(self, rows, instance, learnt, rng),
            self.max_epochs,
            self.learning_rate,
            validate=validate,
            keeps=model if self.early_stopping else None,
        )
        train(
            model,
            [stage],
            settings,
            rng,
            keep=self._keep_history,
            checkpoint=open_checkpoint(self.checkpoint, identity),
            callbacks=EpochCallbacks(self, self.max_epochs),
        )

    def _keep_history(self, history: list[EpochRecord]) -> None:
        self.history_ = history

    def _accuracy(self, classifier: InstanceClassifier, rows: Any, instance: np.ndarray) -> tuple[str, float]:
        """Tell of which share of some rows the classifier names the instance."""
        # The classes are scaled and the features are not: the length of a feature multiplies all its scores alike, and
        # the largest stays the largest.
        features = torch.from_numpy(self._embed(rows)).to(classifier.weight.device)
        classes = functional.normalize(classifier.weight.detach(), dim=1)
        named = torch.cat([(block @ classes.T).argmax(dim=1) for block in torch.split(features, _NAMED_AT_ONCE)])
        return "val_accuracy", float(np.mean(named.cpu().numpy() == instance))


class _InstanceBatch(NamedTuple):
    inputs: Any
    instance: Tensor  # (n,), int64


class _InstanceBatches:
    """The batches of an epoch over some rows of an encoder."""

    def __init__(
        self, encoder: TrainableEncoder, rows: Any, instance: np.ndarray, learnt: np.ndarray, rng: np.random.Generator
    ) -> None:
        self._encoder, self._rows, self._instance, self._learnt, self._rng = encoder, rows, instance, learnt, rng

    def __len__(self) -> int:
        return n_batches(len(self._learnt), self._encoder.batch_size)

    def __iter__(self) -> Iterator[_InstanceBatch]:
        for positions in row_batches(len(self._learnt), self._encoder.batch_size, self._rng):
            batch = self._learnt[positions]
            inputs = self._encoder.collate(self._rows[batch], self._rng)
            yield _InstanceBatch(inputs, torch.from_numpy(self._instance[batch]))


class _InstanceModel(nn.Module):
    """An encoder's network under the classifier that tells instances apart."""

    def __init__(self, module: nn.Module, classifier: InstanceClassifier, settings: TrainingSettings) -> None:
        super().__init__()
        self.module, self.classifier = module, classifier
        self._settings = settings

    def forward(self, batch: _InstanceBatch) -> Tensor:
        """Return the mean loss of a batch."""
        with autocast(self._settings.device, self._settings.dtype):
            features = self.module(batch.inputs)
        # Outside of autocast: the softmax over all instances stays in float32.
        loss: Tensor = self.classifier(features, batch.instance)
        return loss


def as_instances(y: Any, n_rows: int) -> np.ndarray:
    """Number the instances of `y` from 0, shape (n_rows,), int64; a list counts as the tuple of its entries.

    Raises
    ------
    ValueError
        y has another length, or a row has no instance (None, NaN or NA); the message names it.
    TypeError
        y is a single value, a mapping, a set or a file, or an instance does not hash; the message names the row.
    """
    listed = as_rows(y, "instances")
    if len(listed) != n_rows:
        raise ValueError(f"expected one instance for each row in y, got {len(listed)} for {n_rows} rows")
    number: dict[Any, int] = {}
    numbers = np.empty(n_rows, dtype=np.int64)
    # By first appearance, not by np.unique: instances of any kind that hashes need no order among them.
    for row, instance in enumerate(listed):
        if is_missing(instance):
            raise ValueError(
                f"row {row} of y has no instance: {instance!r}; all such rows would be one: give each one of its own, "
                "or leave them out"
            )
        try:
            numbers[row] = number.setdefault(_hashable(instance), len(number))
        except TypeError as error:
            raise TypeError(f"expected a hashable instance in row {row} of y, got {shown(instance)}") from error
    return numbers


def _hashable(instance: Any) -> Any:
    if isinstance(instance, np.ndarray):
        instance = instance.tolist()
    return tuple(map(_hashable, instance)) if isinstance(instance, list) else instance


def _split(instance: np.ndarray, fraction: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return rows to learn from, one of each instance at least, and about a fraction of all that is held out.

    scikit-learn's splitters hold out whole groups, or strata of which each has two rows; here an instance of a single
    row is learnt, and one that is held out has to be known.
    """
    order = rng.permutation(len(instance))
    # The first row of each instance, in an order drawn at random, is one to learn from.
    first = np.unique(instance[order], return_index=True)[1]
    spare = np.delete(order, first)
    if not len(spare):
        raise ValueError(
            "early_stopping=True holds out rows of instances that have others to be learnt from, but each row is the "
            "only one of its instance; give y with rows in common, or set early_stopping=False"
        )
    held_out = spare[: max(1, round(fraction * len(instance)))]
    return np.setdiff1d(order, held_out), np.sort(held_out)
