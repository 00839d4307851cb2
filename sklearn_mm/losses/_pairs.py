"""What every retrieval loss looks at: the scores of a batch, and which of them are no negatives."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PairScores"]


@dataclass(frozen=True)
class PairScores:
    """The scores of a batch of images and texts.

    Parameters
    ----------
    scores : Tensor of shape (n_images, n_texts), float
        Larger is closer.
    image_of_text : Tensor of shape (n_pairs,), int64
        The row of the image that each of the first texts describes: the positive pairs. Texts beyond are negatives
        only.
    not_negative : Tensor of shape (n_images, n_texts), bool
        Pairs that are no negatives of each other: the positive pairs, and every other pair of one image, one group
        or one wording.

    Examples
    --------
    >>> import torch
    >>> from sklearn_mm.losses import PairScores
    >>> scores = torch.tensor([[0.9, 0.7, 0.1], [0.2, 0.3, 0.8]])
    >>> image_of_text = torch.tensor([0, 0, 1])  # the first image has two texts
    >>> pairs = PairScores(scores, image_of_text, torch.tensor([[1, 1, 0], [0, 0, 1]]).bool())
    >>> pairs.positive
    tensor([0.9000, 0.7000, 0.8000])
    >>> pairs.image_negatives()
    tensor([[  -inf, 0.2000],
            [  -inf, 0.3000],
            [0.1000,   -inf]])
    """

    scores: Tensor
    image_of_text: Tensor
    not_negative: Tensor

    @property
    def positive(self) -> Tensor:
        """The score of each positive pair, shape (n_pairs,)."""
        return self.scores[self.image_of_text, torch.arange(len(self.image_of_text), device=self.scores.device)]

    def text_negatives(self) -> Tensor:
        """For each positive pair, the scores of its image with all texts, shape (n_pairs, n_texts).

        What is no negative is minus infinity.
        """
        return self.scores.masked_fill(self.not_negative, -torch.inf)[self.image_of_text]

    def image_negatives(self) -> Tensor:
        """For each positive pair, the scores of its text with all images, shape (n_pairs, n_images).

        What is no negative is minus infinity.
        """
        # texts beyond the pairs have no image of their own that could be told from others
        n_pairs = len(self.image_of_text)
        return self.scores[:, :n_pairs].masked_fill(self.not_negative[:, :n_pairs], -torch.inf).T
