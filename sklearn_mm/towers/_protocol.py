"""What an encoder has to offer to be trained as a tower."""

from typing import Any, Protocol, Self, TypeGuard

import numpy as np
from sklearn.frozen import FrozenEstimator
from torch import Tensor, nn

__all__ = ["TowerEncoder", "is_trainable"]


class TowerEncoder(Protocol):
    """An encoder that a ranker or an annotator trains, batch by batch.

    It says what it prepares once, how a batch of that is put together, what its network is, how wide its output is and
    whether it trains. `TrainableEncoder` holds all of it but `initialize`, `prepare` and `collate`.

    Attributes
    ----------
    module_ : Module
        From what `collate` returns to (n, n_features_out), float; there after `initialize`.
    trains : bool
        Whether whoever holds the encoder trains it. An encoder that does not is asked for its `transform` once, as any
        other transformer.
    n_features_out : int
        Width of the output.
    embed_batch_size : int
        Rows taken at once in use.

    See Also
    --------
    TrainableEncoder : What an encoder of one's own derives from.

    Examples
    --------
    >>> from sklearn_mm.features import TextNGramEncoder
    >>> from sklearn_mm.towers import TowerEncoder
    >>> encoder: TowerEncoder = TextNGramEncoder(n_components=8)
    >>> rows = encoder.initialize(["a dog", "a cat"], random_state=0).prepare(["a cat", "a dog", "a cat and a dog"])
    >>> encoder.module_(encoder.collate(rows[:2])).shape
    torch.Size([2, 8])
    """

    module_: nn.Module
    trains: bool

    @property
    def n_features_out(self) -> int:
        """Width of the output; known after `initialize`."""
        ...

    @property
    def embed_batch_size(self) -> int:
        """Rows taken at once in use."""
        ...

    def initialize(self, data: Any, random_state: Any = None) -> Self:
        """Learn what has to be known of the training data (a vocabulary), and make an untrained `module_`."""
        ...

    def prepare(self, data: Any) -> Any:
        """Do once what need not be done for every batch; return rows: ``len(rows)``, ``rows[slice or int array]``."""
        ...

    def collate(self, rows: Any, rng: np.random.Generator | None = None) -> Any:
        """Make a batch of some rows for `module_`: tensors on the CPU, alone or in a tuple or a mapping.

        With `rng` it is a batch for training, and chance is drawn from it alone. Called in a thread of its own.
        """
        ...

    def output_statistics(self, rows: Any) -> tuple[Tensor, Tensor] | None:
        """Return mean and scale of an output that was learnt elsewhere, (n_features_out,) each; None for any other."""
        ...

    def freeze_pretrained(self, frozen: bool) -> None:
        """Hold still what the encoder was given pretrained, or let it learn again as its parameters say."""
        ...


def is_trainable(encoder: Any) -> TypeGuard[TowerEncoder]:
    """Return whether an encoder is trained as a tower; any other transformer is used frozen."""
    # getattr: any transformer of scikit-learn, and None, is asked. A FrozenEstimator would answer for what it holds.
    return not isinstance(encoder, FrozenEstimator) and bool(getattr(encoder, "trains", False))
