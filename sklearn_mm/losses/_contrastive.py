"""Contrastive loss: tell the positive from all negatives by a softmax over scores."""

import torch
from torch import Tensor

__all__ = ["infonce_loss"]


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
    logits = torch.cat([positive, negative], dim=1)  # (n_pairs, 1 + n_negatives)
    return torch.logsumexp(logits, dim=1) - positive[:, 0]
