"""Pairwise ranking loss: hinges on a positive pair and its negatives."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from sklearn_mm._params import Interval, InvalidParameterError, StrOptions, non_negative_int
from sklearn_mm.losses._base import PairLoss
from sklearn_mm.losses._negatives import NEGATIVES
from sklearn_mm.losses._pairs import PairScores
from sklearn_mm.registry import stored_as

__all__ = ["RankingLoss", "ranking_loss"]


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
    # minus infinity is a hinge of 0, and has a gradient of 0: no mask is needed
    return torch.relu(negative + (margin - positive)[:, None]).sum(dim=1)


@stored_as("losses.RankingLoss")
class RankingLoss(PairLoss):
    """Hinges with a margin on each pair and some of its negatives.

    Parameters
    ----------
    margin : float, default=0.2
        By how much the true pair's score has to be the higher one; at least 0.
    negatives : {"all", "hardest", "hardest-anchor", "semi-hard", "random"} or two of them, default="all"
        Which of a batch's negatives each pair is set against; two names: among texts, among images. "hardest" is that
        of VSE++ [2]_; "hardest-anchor" lets each negative count for the pair it violates most, as in the code of the
        full-network embedding; "semi-hard" is the highest-scored one below the pair itself.
    side : {"both", "text", "image"}, default="both"
        Whether the text of a pair is replaced by a wrong one, or the image, or each in turn.
    pool_size : int, default=0
        In each step, look through so many texts of the whole training set for each image's hardest negative, and put
        it among the batch's (256 in [3]_). Takes one more pass of the text tower over them, without gradient.

    See Also
    --------
    ranking_loss : The function, of one direction and of negatives already chosen.

    References
    ----------
    .. [1] Kiros, Salakhutdinov, Zemel, "Unifying Visual-Semantic Embeddings with Multimodal Neural Language Models",
       2014, equation 3, https://arxiv.org/abs/1411.2539
    .. [2] Faghri, Fleet, Kiros, Fidler, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives", BMVC 2018,
       equation 6, https://arxiv.org/abs/1707.05612
    .. [3] Zheng, Zheng, Garrett, Yang, Xu, Shen, "Dual-Path Convolutional Image-Text Embeddings with Instance Loss",
       ACM TOMM 16(2), 2020, https://arxiv.org/abs/1711.05535

    Examples
    --------
    >>> import torch
    >>> from sklearn_mm.losses import PairScores, RankingLoss
    >>> pairs = PairScores(torch.tensor([[0.9, 0.8], [0.2, 0.8]]), torch.tensor([0, 1]), torch.eye(2).bool())
    >>> RankingLoss(margin=0.2, negatives="hardest")(pairs)  # the first image's wrong text, the second text's image
    tensor([0.1000, 0.2000])
    """

    short_name = "ranking"
    _parameter_constraints: dict[str, Any] = {
        "margin": [Interval(Real, 0, None, closed="left")],
        "negatives": [StrOptions(set(NEGATIVES)), tuple, list],
        "side": [StrOptions({"both", "text", "image"})],
        "pool_size": [non_negative_int],
    }

    def __init__(
        self,
        margin: float = 0.2,
        negatives: str | Sequence[str] = "all",
        side: str = "both",
        pool_size: int = 0,
    ) -> None:
        self.margin = margin
        self.negatives = negatives
        self.side = side
        self.pool_size = pool_size

    def __call__(self, pairs: PairScores, **learnt: Tensor) -> Tensor:
        """Compute the loss of each positive pair, the sum of the sides.

        Parameters
        ----------
        pairs : PairScores
        **learnt : 0-d Tensor
            None is trained.

        Returns
        -------
        Tensor of shape (n_pairs,)
        """
        among_texts, among_images = _two_names(self.negatives)
        losses = []
        if self.side != "image":
            losses.append(self._one_side(pairs.positive, pairs.text_negatives(), among_texts))
        if self.side != "text":
            losses.append(self._one_side(pairs.positive, pairs.image_negatives(), among_images))
        return torch.stack(losses).sum(dim=0)

    def _one_side(self, positive: Tensor, negative: Tensor, choice: str) -> Tensor:
        return ranking_loss(positive, NEGATIVES[choice](positive, negative), self.margin)

    def _validate_params(self) -> None:  # the table has no word for what stands in a pair
        super()._validate_params()
        _two_names(self.negatives)


def _two_names(given: str | Sequence[str]) -> tuple[str, str]:
    """Return the names of the negatives among texts and among images, from one name or two."""
    names = (given, given) if isinstance(given, str) else tuple(given)
    if len(names) != 2 or not all(name in NEGATIVES for name in names):
        raise InvalidParameterError(f"negatives must be one or two of {sorted(NEGATIVES)}, got {given!r}")
    return names
