"""From the embeddings of a batch to its loss, as the ranker's parameters say."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sklearn_mm.losses import SIMILARITIES, PairScores, infonce_loss, ranking_loss
from sklearn_mm.nn.heads import unit_rows
from sklearn_mm.sampling import NEGATIVES

__all__ = ["Objective"]


@dataclass(frozen=True)
class Objective:
    """A ranker's loss.

    Attributes
    ----------
    similarity : {"cosine", "order"}
    loss : {"ranking", "infonce"}
    margin : float
        Of the ranking loss.
    temperature : float
        Of InfoNCE.
    negatives : {"all", "hardest", "semi-hard", "random"}
    negative_side : {"both", "text", "image"}
        Whether the text, the image, or each in turn is replaced by a negative.
    """

    similarity: str
    loss: str
    margin: float
    temperature: float
    negatives: str
    negative_side: str

    def __call__(
        self, image: Tensor, text: Tensor, image_of_text: Tensor, not_negative: Tensor, weight: Tensor
    ) -> Tensor:
        """Compute the mean loss of a batch.

        Parameters
        ----------
        image : Tensor of shape (n_images, n_components)
        text : Tensor of shape (n_texts, n_components)
            Neither normalised.
        image_of_text : Tensor of shape (n_texts,), int64
        not_negative : Tensor of shape (n_images, n_texts), bool
        weight : Tensor of shape (n_texts,), float
            Of each positive pair.
        """
        positive_only = self.similarity == "order"
        scores = SIMILARITIES[self.similarity](unit_rows(image, positive_only), unit_rows(text, positive_only))
        pairs = PairScores(scores, image_of_text, not_negative)
        losses = []
        if self.negative_side != "image":
            losses.append(self._one_side(pairs.positive, pairs.text_negatives()))
        if self.negative_side != "text":
            losses.append(self._one_side(pairs.positive, pairs.image_negatives()))
        return (torch.stack(losses).sum(dim=0) * weight).mean()

    def _one_side(self, positive: Tensor, negative: Tensor) -> Tensor:
        chosen = NEGATIVES[self.negatives](positive, negative)
        if self.loss == "infonce":
            return infonce_loss(positive, chosen, self.temperature)
        return ranking_loss(positive, chosen, self.margin)
