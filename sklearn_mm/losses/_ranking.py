"""Pairwise ranking loss: hinges on a positive pair and its negatives."""

import torch
from torch import Tensor

__all__ = ["ranking_loss"]


def ranking_loss(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Sum the hinges of each positive pair over its negatives.

    Parameters
    ----------
    positive : Tensor of shape (n_pairs,), float
        The score of each positive pair.
    negative : Tensor of shape (n_pairs, n_negatives), float
        The scores of its negatives; minus infinity marks an entry that is none.
    margin : float
        How much higher the positive score has to be.

    Returns
    -------
    Tensor of shape (n_pairs,)
        ``sum_n max(0, margin - positive + negative_n)``.

    Notes
    -----
    Over all negatives this is the sum of hinges of [1]_, over the hardest one alone the maximum of hinges of [2]_.

    References
    ----------
    .. [1] Kiros, Salakhutdinov, Zemel, "Unifying Visual-Semantic Embeddings with Multimodal Neural Language Models",
       2014, equation 3.
    .. [2] Faghri, Fleet, Kiros, Fidler, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives", BMVC 2018,
       equation 6.

    Examples
    --------
    >>> import torch
    >>> ranking_loss(torch.tensor([0.5]), torch.tensor([[0.4, 0.1]]), margin=0.2)
    tensor([0.1000])
    """
    return torch.relu(negative + (margin - positive)[:, None]).sum(dim=1)
