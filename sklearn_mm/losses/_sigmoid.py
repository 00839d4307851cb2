"""Sigmoid loss: every pair of a batch is a question of its own, whether the text is the image's."""

import math
from collections.abc import Mapping
from typing import Any, Self

from sklearn.base import clone
from torch import Tensor
from torch.nn.functional import logsigmoid

from sklearn_mm._params import Real, positive_real
from sklearn_mm.losses._base import PairLoss
from sklearn_mm.losses._pairs import PairScores
from sklearn_mm.losses._temperature import learnt_temperature, temperature_of
from sklearn_mm.registry import stored_as

__all__ = ["SigmoidLoss"]


@stored_as("losses.SigmoidLoss")
class SigmoidLoss(PairLoss):
    """Binary cross-entropies of all pairs of a batch, with no softmax over it.

    Parameters
    ----------
    temperature : float, default=0.1
        Scores are divided by it; above 0.
    bias : float, default=-10.0
        Then added to the scores. Most pairs of a batch are negatives: far below 0, it says so from the start.
    trainable : bool, default=True
        Train the logarithm of the temperature, and the bias, with the towers, from the values given; the temperature
        never falls below 0.01.

    Notes
    -----
    With the score s of an image and a text, z = s / temperature + bias. The loss of a pair is ``-log sigmoid(z)``, and
    ``-sum log sigmoid(-z)`` over its text and those images that are its negatives, so that the sum over a batch is that
    of [1]_, over all its images and texts. An image with several texts has several positive pairs, and all count, as
    the further captions of [2]_ do: `captions_per_image` of the ranker says how many. What is neither positive nor
    negative (the texts of an image of the same group) is left out. So are texts beyond the pairs: they have no pair
    that their losses could belong to, and without a pool of texts there are none.

    References
    ----------
    .. [1] Zhai, Mustafa, Kolesnikov, Beyer, "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, section 3.2,
       https://arxiv.org/abs/2303.15343
    .. [2] Zhang, Le, Agrawal, "Assessing and Learning Alignment of Unimodal Vision and Language Models" (SAIL),
       CVPR 2025, https://arxiv.org/abs/2412.04616

    Examples
    --------
    >>> import torch
    >>> from sklearn_mm.losses import PairScores, SigmoidLoss
    >>> pairs = PairScores(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 1]), torch.eye(2).bool())
    >>> SigmoidLoss(temperature=0.1, bias=-5.0)(pairs)
    tensor([0.0667, 0.0667])
    """

    short_name = "sigmoid"
    _parameter_constraints: dict[str, Any] = {
        "temperature": [positive_real],
        "bias": [Real],
        "trainable": ["boolean"],
    }

    # the start of [1]: ten times the score, less ten
    def __init__(self, temperature: float = 0.1, bias: float = -10.0, trainable: bool = True) -> None:
        self.temperature = temperature
        self.bias = bias
        self.trainable = trainable

    def __call__(self, pairs: PairScores, **learnt: Tensor) -> Tensor:
        """Compute the loss of each positive pair.

        Parameters
        ----------
        pairs : PairScores
        **learnt : 0-d Tensor
            ``log_temperature`` and ``bias``; without them the parameters count.

        Returns
        -------
        Tensor of shape (n_pairs,)
        """
        temperature, bias = temperature_of(learnt, self.temperature), learnt.get("bias", self.bias)
        n_pairs = len(pairs.image_of_text)
        logits = pairs.scores[:, :n_pairs] / temperature + bias  # (n_images, n_pairs)
        positive = logsigmoid(pairs.positive / temperature + bias)
        # positive pairs are in the mask as well: they count once, above
        negative = logsigmoid(-logits).masked_fill(pairs.not_negative[:, :n_pairs], 0.0)
        return -(positive + negative.sum(dim=0))

    def initial(self) -> dict[str, float]:
        """Return the logarithm of the temperature and the bias, where they are trained."""
        return {"log_temperature": math.log(self.temperature), "bias": float(self.bias)} if self.trainable else {}

    def with_learnt(self, values: Mapping[str, float]) -> Self:
        """Return the loss of the temperature and the bias learnt.

        Parameters
        ----------
        values : mapping from str to float
        """
        return clone(self).set_params(
            temperature=learnt_temperature(values, self.temperature), bias=values.get("bias", self.bias)
        )
