"""What an estimator asks of a loss, and how a loss is named."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self, TypeVar

from sklearn.base import BaseEstimator, clone
from torch import Tensor

from sklearn_mm._params import InvalidParameterError
from sklearn_mm.losses._pairs import PairScores
from sklearn_mm.registry import stored_as

__all__ = ["LabelLoss", "PairLoss", "by_short_name", "resolve_loss"]

Loss = TypeVar("Loss", bound="PairLoss | LabelLoss")


@stored_as("losses.PairLoss")
class PairLoss(BaseEstimator):
    """What a ranker asks of a loss: from the scores of a batch to a loss per pair.

    A loss of your own derives from this class, keeps its parameters in ``__init__`` under their own names, and has
    ``__call__(pairs, **learnt)``. The rest is there.

    Attributes
    ----------
    short_name : str or None
        What a ranker calls the loss with default parameters by; None for a loss that has to be given as an object.
    pool_size : int
        How many texts of the whole training set are looked through for each image's hardest negative, which then
        joins the batch; 0 for none. A loss may make it a parameter.

    See Also
    --------
    LabelLoss : The same for annotators.

    Notes
    -----
    A loss holds no state of training: the numbers trained with the towers, of which `initial` says the start, come
    into every call as tensors, and `with_learnt` makes the loss that has them as its parameters.

    Entries that are no negatives are minus infinity: what scales them by a number that is learnt has to mask them
    first, or its gradient, 0 times infinity, is NaN.

    Examples
    --------
    >>> import torch
    >>> from sklearn_mm.losses import PairLoss, PairScores
    >>> class SoftMargin(PairLoss):
    ...     def __init__(self, sharpness=1.0):
    ...         self.sharpness = sharpness
    ...
    ...     def __call__(self, pairs, **learnt):
    ...         gap = pairs.text_negatives() - pairs.positive[:, None]  # (n_pairs, n_texts)
    ...         return torch.nn.functional.softplus(self.sharpness * gap).sum(dim=1)
    >>> pairs = PairScores(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 1]), torch.eye(2).bool())
    >>> SoftMargin(sharpness=5.0)(pairs)
    tensor([0.0181, 0.0486])
    """

    short_name: str | None = None
    pool_size: int = 0
    _parameter_constraints: dict[str, Any] = {}

    def __call__(self, pairs: PairScores, **learnt: Tensor) -> Tensor:
        """Compute the loss of each positive pair.

        Parameters
        ----------
        pairs : PairScores
        **learnt : 0-d Tensor
            What is trained with the towers, under the names of `initial`; without it the parameters count.

        Returns
        -------
        Tensor of shape (n_pairs,)
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method __call__(self, pairs, **learnt)")

    def initial(self) -> dict[str, float]:
        """Return the numbers that are trained with the towers, each with its value at the start."""
        return {}

    def with_learnt(self, values: Mapping[str, float]) -> Self:
        """Return a loss of the same kind whose parameters hold what was learnt.

        Parameters
        ----------
        values : mapping from str to float
            Of the numbers of `initial`, where training has brought them.
        """
        return clone(self)


@stored_as("losses.LabelLoss")
class LabelLoss(BaseEstimator):
    """What an annotator asks of a loss: from scores of labels to a loss per image.

    A loss of your own derives from this class, keeps its parameters in ``__init__`` under their own names, and has
    ``__call__(logits, targets, label_weight=None)``. The rest is there.

    Attributes
    ----------
    short_name : str or None
        What an annotator calls the loss with default parameters by; None for a loss that has to be given as an object.
    shares : bool
        Whether the softmax of the logits says which share of an image's labels each label is. Such logits become log
        odds only by the number of labels; others are log odds as they are.

    See Also
    --------
    PairLoss : The same for rankers.

    Examples
    --------
    >>> import torch
    >>> from sklearn_mm.losses import LabelLoss
    >>> class SquaredLoss(LabelLoss):
    ...     def __call__(self, logits, targets, label_weight=None):
    ...         factor = 1 if label_weight is None else torch.where(targets == 1, label_weight, 1)
    ...         return (factor * (torch.sigmoid(logits) - targets) ** 2).nansum(dim=1)  # NaN: not known
    >>> SquaredLoss()(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, torch.nan]]))
    tensor([0.5000])
    """

    short_name: str | None = None
    shares: bool = False
    _parameter_constraints: dict[str, Any] = {}

    def __call__(self, logits: Tensor, targets: Tensor, label_weight: Tensor | None = None) -> Tensor:
        """Compute the loss of each image.

        Parameters
        ----------
        logits : Tensor of shape (n, n_labels), float
        targets : Tensor of shape (n, n_labels), float
            1 where a label is true, 0 where it is not, NaN where that is not known.
        label_weight : Tensor of shape (n_labels,), optional
            Factor on the loss of each label where it is true.

        Returns
        -------
        Tensor of shape (n,)
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs a method __call__(self, logits, targets, label_weight=None)"
        )


def by_short_name(*losses: type[Loss]) -> Mapping[str, type[Loss]]:
    """Return the table from short names to the classes that have one."""
    # read-only: a loss of one's own is passed as an object, not entered into a table
    return MappingProxyType({loss.short_name: loss for loss in losses if loss.short_name is not None})


def resolve_loss(given: str | Loss, kind: type[Loss], known: Mapping[str, type[Loss]]) -> Loss:
    """Return the loss that was named or given.

    Parameters
    ----------
    given : str or loss
        A short name stands for the loss with default parameters; an object is returned as it is.
    kind : {PairLoss, LabelLoss}
        What the estimator asks for.
    known : mapping from str to class
        By short name.

    Raises
    ------
    InvalidParameterError
        Neither; a ValueError and a TypeError, as scikit-learn's are.
    """
    expected = f"loss must be {', '.join(map(repr, sorted(known)))} or an object derived from {kind.__name__}"
    if isinstance(given, str) and given in known:
        return known[given]()
    if isinstance(given, type):
        raise InvalidParameterError(f"{expected}, got the class {given.__name__}; call it: {given.__name__}(...)")
    if not isinstance(given, kind):
        raise InvalidParameterError(f"{expected}, got {given!r}")
    return given
