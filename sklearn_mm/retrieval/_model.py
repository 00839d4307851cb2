"""What a ranker trains: two towers, what pairs are ranked by, and the classifier of the instance loss."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm._device import nothing_drawn
from sklearn_mm.losses import SIMILARITIES, InstanceClassifier, PairLoss, PairScores
from sklearn_mm.nn.heads import unit_rows
from sklearn_mm.retrieval._data import JointBatch, Shares, TextPool
from sklearn_mm.towers import Tower, join_batches, take_rows

__all__ = ["JointModel", "PairObjective", "is_positive_only"]


def is_positive_only(similarity: str) -> bool:
    """Return whether embeddings are absolute values: in Vendrov's order embeddings, but not in VSE++'s."""
    return similarity == "order"


class PairObjective(nn.Module):
    """What pairs are ranked by: scores, and a loss of them with what it learns itself.

    Parameters
    ----------
    loss : PairLoss
    similarity : {"cosine", "order", "order-root"}

    Attributes
    ----------
    learnt : ParameterDict
        The loss's own scalars that train with the towers: a temperature.
    """

    def __init__(self, loss: PairLoss, similarity: str) -> None:
        super().__init__()
        self.loss = loss
        self._similarity = similarity
        # Registered here, as a loss is no module: the optimiser, the device and the checkpoint find them by the model.
        self.learnt = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(value)) for name, value in loss.initial().items()}
        )

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
        # Our losses draw nothing but from a generator that they name; one of a user's own may.
        is_ours = type(self.loss).__module__.startswith("sklearn_mm.")
        with nothing_drawn() if is_ours else nullcontext():
            return self._mean_loss(image, text, image_of_text, not_negative, weight)

    def _mean_loss(
        self, image: Tensor, text: Tensor, image_of_text: Tensor, not_negative: Tensor, weight: Tensor
    ) -> Tensor:
        pairs = PairScores(self.scores(image, text), image_of_text, not_negative)
        # Divided by the number of pairs, not by the sum of their weights: those have mean 1 over all images, and a
        # batch of heavy ones counts for more, as it would if they were there twice.
        return (self.loss(pairs, **self.learnt) * weight).mean()

    def learnt_loss(self) -> PairLoss:
        """Return the loss with the values that it has learnt as its parameters."""
        return self.loss.with_learnt({name: float(value.detach()) for name, value in self.learnt.items()})


class JointModel(nn.Module):
    """Both towers with all that is asked of them: `forward` is the loss of a batch.

    Parameters
    ----------
    image_tower, text_tower : Tower
    objective : PairObjective
    classifier : InstanceClassifier or None
        Of the instance loss.
    relu : bool
        Losses see embeddings after a ReLU.
    chunk_size : int or None
        How many images, or texts, are in an encoder's network at once; None for all of a batch.

    Attributes
    ----------
    ranks : bool
        Whether pairs are ranked, or the instance loss is alone.
    instance_weights : pair of float
        Of the instance loss of images and of texts.
    """

    def __init__(
        self,
        image_tower: Tower,
        text_tower: Tower,
        objective: PairObjective,
        classifier: InstanceClassifier | None = None,
        *,
        relu: bool = False,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        self.image_tower, self.text_tower = image_tower, text_tower
        self.objective, self.classifier = objective, classifier
        # Not a part of the towers, which embed for search without it, as Zheng et al. do.
        self._activation = nn.ReLU() if relu else nn.Identity()
        self._chunk_size = chunk_size
        self.ranks = True
        self.instance_weights = (0.0, 0.0)

    @property
    def parts_in_chunks(self) -> list[nn.Module]:
        """The networks that a batch passes in chunks."""
        if self._chunk_size is None:
            return []
        return [tower.body for tower in (self.image_tower, self.text_tower) if tower.body is not None]

    def begin(self, *, ranks: bool, instance_weights: tuple[float, float], freezes: bool) -> None:
        """Say what the next stage trains by, and whether a backbone is held still in it."""
        self.ranks, self.instance_weights = ranks, instance_weights
        self.image_tower.freeze_pretrained(freezes)

    def forward(self, batch: JointBatch) -> Tensor:
        """Compute the mean loss of a batch, a 0-d tensor."""
        shares = batch.shares
        n_own = shares.own_texts.stop - shares.own_texts.start
        own_image = self._embed(self.image_tower, batch.image, shares.own_images.stop - shares.own_images.start)
        image = _rows_of_all(own_image, shares.images, shares)
        texts, not_negative, mined_shares, n_mined = batch.text, batch.not_negative, None, 0
        if batch.pool is not None:
            # Mined texts go through the tower once more with those of the batch: now in training mode, and with a
            # gradient.
            mined = self._mine(image, batch.pool, shares)
            own_mined, mined_shares = _own_of_pool(mined, len(batch.pool.is_in_batch), shares)
            n_mined = len(own_mined)
            if n_mined or shares.processes.n == 1:
                texts = join_batches(texts, take_rows(batch.pool.text, own_mined))
            not_negative = torch.cat([not_negative, batch.pool.not_negative[:, mined]], dim=1)  # (n_images, all texts)
        text = self._embed(self.text_tower, texts, n_own + n_mined)
        losses = []
        if self.ranks:
            weight = batch.weight[batch.image_of_text]  # (n_pairs,)
            everyones = _texts_of_all(text, n_own, mined_shares, shares)
            losses.append(self.objective(image, everyones, batch.image_of_text, not_negative, weight))
        if self.classifier is not None:
            # Mined texts stand behind the batch's own. They are negatives alone: the classifier is not asked about
            # them.
            losses += self._instance_losses(own_image, text[:n_own], batch)
        return torch.stack(losses).sum()

    def _embed(self, tower: Tower, batch: Any, n_rows: int) -> Tensor:
        embedded: Tensor = self._activation(tower.forward_in_chunks(batch, n_rows, self._chunk_size))
        return embedded

    def _instance_losses(self, image: Tensor, text: Tensor, batch: JointBatch) -> Iterator[Tensor]:
        shares = batch.shares
        owners: list[Any] = [slice(None), batch.image_of_text]
        own_rows = [shares.own_images, shares.own_texts]
        for features, owner, own, factor in zip((image, text), owners, own_rows, self.instance_weights, strict=True):
            # A side of weight 0 is not sent through the classifier, which has a row for each image of the training set.
            if factor > 0 and self.classifier is not None:
                instance, weight = batch.instance[owner], batch.weight[owner]
                # The mean over processes is to be the mean over all rows, of which each has its own.
                factor *= len(features) * shares.processes.n / len(instance)
                yield self.classifier(features, instance[own], weight[own], factor=factor)

    def _mine(self, image: Tensor, pool: TextPool, shares: Shares) -> Tensor:
        """Return where each image's hardest negatives stand in the pool, each once; texts of the batch left out.

        They are embedded as in use, without a gradient.
        """
        parts = shares.processes.shares(len(pool.is_in_batch))
        own = parts[shares.processes.rank]
        with torch.no_grad(), _evaluating(self.text_tower):
            text = _rows_of_all(self._embed(self.text_tower, pool.text, own.stop - own.start), parts, shares)
            scores = self.objective.scores(image.detach(), text)
        # Where the pool has no negative for an image, argmax gives the first text; the loss masks it for that image
        # again.
        hardest = scores.masked_fill(pool.not_negative, -torch.inf).argmax(dim=1)
        # The first process's: another processor may round two scores that are all but equal the other way.
        hardest = torch.unique(shares.processes.first(hardest))
        # A text of the batch is among the negatives already, and would count twice.
        return hardest[~pool.is_in_batch[hardest]]


def _rows_of_all(own: Tensor, parts: list[slice], shares: Shares) -> Tensor:
    """Return the rows of all processes, of which this one has its part."""
    if shares.processes.n == 1:
        return own
    # In float32, as losses compute: autocast leaves half precision, which not every backend sends.
    return shares.processes.gather(own.float(), [part.stop - part.start for part in parts])


def _own_of_pool(mined: Tensor, n_pool: int, shares: Shares) -> tuple[Tensor, list[slice]]:
    """Return where those of the texts mined that this process has stand in its part of the pool, and who has which."""
    if shares.processes.n == 1:
        return mined, [slice(0, len(mined))]
    parts = shares.processes.shares(n_pool)
    ends = torch.searchsorted(mined, torch.tensor([0, *(part.stop for part in parts)], device=mined.device)).tolist()
    having = [slice(*pair) for pair in pairwise(ends)]
    return mined[having[shares.processes.rank]] - parts[shares.processes.rank].start, having


def _texts_of_all(text: Tensor, n_own: int, mined: list[slice] | None, shares: Shares) -> Tensor:
    """Return the texts of all processes: those of the batch, then those mined."""
    if shares.processes.n == 1 or mined is None:
        return _rows_of_all(text, shares.texts, shares)
    return torch.cat([_rows_of_all(text[:n_own], shares.texts, shares), _rows_of_all(text[n_own:], mined, shares)])


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode inside the block, and each part back into its own mode after it."""
    # Part by part: train() would put a network that is held still back into training mode with the rest.
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes:
            part.training = mode
