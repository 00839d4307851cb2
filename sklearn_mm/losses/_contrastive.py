"""Contrastive loss: tell the positive from all negatives by a softmax over scores."""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from sklearn.base import clone
from torch import Tensor

from sklearn_mm._params import StrOptions, positive_real
from sklearn_mm.losses._base import PairLoss
from sklearn_mm.losses._pairs import PairScores
from sklearn_mm.losses._temperature import learnt_temperature, temperature_of
from sklearn_mm.registry import stored_as

__all__ = ["InfoNCELoss", "infonce_loss"]


def infonce_loss(positive: Tensor, negative: Tensor, temperature: float | Tensor) -> Tensor:
    """Compute the cross-entropy of each positive pair against its negatives.

    Parameters
    ----------
    positive : Tensor of shape (n_pairs,), float
        The score of each positive pair.
    negative : Tensor of shape (n_pairs, n_negatives), float
        The scores of its negatives; minus infinity marks an entry that is none.
    temperature : float or 0-d Tensor
        Scores are divided by it; above 0.

    Returns
    -------
    Tensor of shape (n_pairs,)
        ``log(exp(p / t) + sum_n exp(n / t)) - p / t``; 0 for a pair without negatives.

    References
    ----------
    .. [1] van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018, equation 4.

    Examples
    --------
    >>> import torch
    >>> infonce_loss(torch.tensor([1.0]), torch.tensor([[1.0, 1.0, 1.0]]), temperature=0.1)
    tensor([1.3863])
    """
    positive = positive[:, None] / temperature
    if isinstance(temperature, Tensor):  # whose gradient would be infinity times 0 at an entry that is none
        none = negative.isneginf()
        negative = (negative.masked_fill(none, 0.0) / temperature).masked_fill(none, -torch.inf)
    else:
        negative = negative / temperature
    # the positive is one of the classes: a pair without negatives has one class, and the loss 0
    logits = torch.cat([positive, negative], dim=1)  # (n_pairs, 1 + n_negatives)
    return torch.logsumexp(logits, dim=1) - positive[:, 0]


@stored_as("losses.InfoNCELoss")
class InfoNCELoss(PairLoss):
    """Softmax over a batch: each pair against all its negatives.

    Parameters
    ----------
    temperature : float, default=0.07
        Scores are divided by it; above 0.
    trainable : bool, default=False
        Train the logarithm of the temperature with the towers, from the value given; the temperature never falls below
        0.01.
    side : {"both", "text", "image"}, default="both"
        Whether the text of a pair is told from wrong ones, or the image, or each in turn, and the losses added.

    See Also
    --------
    infonce_loss : The function, of one direction.

    References
    ----------
    .. [1] van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018, equation 4,
       https://arxiv.org/abs/1807.03748
    .. [2] Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, figure 3,
       https://arxiv.org/abs/2103.00020: its trained temperature; the mean of both directions where ours is their sum.

    Examples
    --------
    >>> import torch
    >>> from sklearn_mm.losses import InfoNCELoss, PairScores
    >>> pairs = PairScores(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 1]), torch.eye(2).bool())
    >>> InfoNCELoss(temperature=0.2)(pairs)
    tensor([0.0479, 0.0783])
    """

    short_name = "infonce"
    _parameter_constraints: dict[str, Any] = {
        "temperature": [positive_real],
        "trainable": ["boolean"],
        "side": [StrOptions({"both", "text", "image"})],
    }

    def __init__(self, temperature: float = 0.07, trainable: bool = False, side: str = "both") -> None:
        self.temperature = temperature
        self.trainable = trainable
        self.side = side

    def __call__(self, pairs: PairScores, **learnt: Tensor) -> Tensor:
        """Compute the loss of each positive pair, the sum of the sides.

        Parameters
        ----------
        pairs : PairScores
        **learnt : 0-d Tensor
            ``log_temperature``; without it `temperature` counts.

        Returns
        -------
        Tensor of shape (n_pairs,)
        """
        sides = {"text": pairs.text_negatives, "image": pairs.image_negatives}
        losses = [
            infonce_loss(pairs.positive, negatives(), temperature_of(learnt, self.temperature))
            for side, negatives in sides.items()
            if self.side in ("both", side)
        ]
        return torch.stack(losses).sum(dim=0)

    def initial(self) -> dict[str, float]:
        """Return the logarithm of the temperature, where it is trained."""
        # by the logarithm, as in CLIP: a step never makes it negative, and changes it by a share
        return {"log_temperature": math.log(self.temperature)} if self.trainable else {}

    def with_learnt(self, values: Mapping[str, float]) -> Self:
        """Return the loss of the temperature learnt.

        Parameters
        ----------
        values : mapping from str to float
        """
        return clone(self).set_params(temperature=learnt_temperature(values, self.temperature))
