"""From the embeddings of a batch to its loss, as the ranker's parameters say."""

import math

import torch
from torch import Tensor, nn

from sklearn_mm.losses import NEGATIVES, SIMILARITIES, PairScores, infonce_loss, ranking_loss
from sklearn_mm.nn.heads import unit_rows

__all__ = ["Objective", "is_positive_only"]

_LOWEST_TEMPERATURE = 0.01  # below, scores of 1 overflow half precision, and training has been seen to diverge (CLIP)


def is_positive_only(similarity: str) -> bool:
    """Return whether embeddings are absolute values: in Vendrov's order embeddings, but not in VSE++'s."""
    return similarity == "order"


class Objective(nn.Module):
    """What pairs are ranked by.

    Parameters
    ----------
    similarity : {"cosine", "order", "order-root"}
    loss : {"ranking", "infonce"}
    margin : float
        Of the ranking loss.
    temperature : float
        Of InfoNCE.
    train_temperature : bool
        Start from `temperature`, and train its logarithm with the rest.
    negatives : pair of {"all", "hardest", "hardest-anchor", "semi-hard", "random"}
        Among texts, and among images.
    negative_side : {"both", "text", "image"}
        Whether the text, the image, or each in turn is replaced by a negative.
    """

    def __init__(
        self,
        *,
        similarity: str,
        loss: str,
        margin: float,
        temperature: float,
        train_temperature: bool,
        negatives: tuple[str, str],
        negative_side: str,
    ) -> None:
        super().__init__()
        self._similarity = similarity
        self._loss = loss
        self._margin = margin
        self._temperature = temperature
        self._negative_texts, self._negative_images = (NEGATIVES[name] for name in negatives)
        self._negative_side = negative_side
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)), requires_grad=train_temperature)

    @property
    def temperature(self) -> Tensor:
        """The temperature as it stands, a 0-d tensor."""
        return self.log_temperature.exp().clamp_min(_LOWEST_TEMPERATURE)

    def scores(self, image: Tensor, text: Tensor) -> Tensor:
        """Score images (n_images, d) and texts (n_texts, d), neither normalised: (n_images, n_texts)."""
        positive_only = is_positive_only(self._similarity)
        return SIMILARITIES[self._similarity](unit_rows(image, positive_only), unit_rows(text, positive_only))

    def forward(
        self, image: Tensor, text: Tensor, image_of_text: Tensor, not_negative: Tensor, weight: Tensor
    ) -> Tensor:
        """Compute the mean loss of a batch.

        Parameters
        ----------
        image : Tensor of shape (n_images, d)
        text : Tensor of shape (n_texts, d)
            Neither normalised. The first n_pairs texts are in positive pairs, the others only negatives.
        image_of_text : Tensor of shape (n_pairs,), int64
        not_negative : Tensor of shape (n_images, n_texts), bool
        weight : Tensor of shape (n_pairs,), float
            Of each positive pair.
        """
        pairs = PairScores(self.scores(image, text), image_of_text, not_negative)
        losses = []
        if self._negative_side != "image":
            losses.append(self._one_side(pairs.positive, self._negative_texts(pairs.positive, pairs.text_negatives())))
        if self._negative_side != "text":
            losses.append(
                self._one_side(pairs.positive, self._negative_images(pairs.positive, pairs.image_negatives()))
            )
        return (torch.stack(losses).sum(dim=0) * weight).mean()

    def _one_side(self, positive: Tensor, chosen: Tensor) -> Tensor:
        if self._loss == "infonce":
            temperature = self.temperature if self.log_temperature.requires_grad else self._temperature
            return infonce_loss(positive, chosen, temperature)
        return ranking_loss(positive, chosen, self._margin)
