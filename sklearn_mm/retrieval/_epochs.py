"""What two towers are trained on together, and from a batch of it to the loss."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_mm.features._instance_training import SharedClassifier
from sklearn_mm.features._tower import Tower
from sklearn_mm.retrieval._objective import Objective
from sklearn_mm.retrieval._training_rows import TrainingRows
from sklearn_mm.sampling import caption_batches, n_batches

__all__ = ["JointBatches", "JointStep"]

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class JointBatches:
    """What two towers are trained on.

    Attributes
    ----------
    image_tower, text_tower : Tower
        Of one device.
    image_rows : prepared images
        Of which `training` says the rows.
    text_rows : prepared texts
        Those of `training`.
    training : TrainingRows
    batch_size, captions_per_image : int
    text_pool_size : int
        How many texts of other images are looked through for a harder negative; 0 for none.
    rng : numpy.random.Generator
    """

    image_tower: Tower
    text_tower: Tower
    image_rows: Any
    text_rows: Any
    training: TrainingRows
    batch_size: int
    captions_per_image: int
    text_pool_size: int
    rng: np.random.Generator

    def __len__(self) -> int:
        return n_batches(len(self.training), self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return caption_batches(self.training.starts, self.batch_size, self.captions_per_image, self.rng)


class JointStep:
    """From a batch to its loss.

    Parameters
    ----------
    data : JointBatches
    objective : Objective or None
        What pairs are ranked by; None leaves the instance loss alone.
    classifier : SharedClassifier or None
    instance_weight : pair of float
        Of the instance loss of images and of texts.
    final_relu : bool
        Losses see embeddings after a ReLU.
    """

    def __init__(
        self,
        data: JointBatches,
        objective: Objective | None,
        classifier: SharedClassifier | None,
        instance_weight: tuple[float, float],
        final_relu: bool,
    ) -> None:
        self._data = data
        self._objective = objective
        self._classifier = classifier
        self._instance_weight = instance_weight
        self._activation = torch.relu if final_relu else nn.Identity()

    def __call__(self, batch: Batch) -> Tensor:
        """Compute the loss of images, texts and the position among the images of each text's."""
        images, texts, image_of_text = batch
        data, training, rng = self._data, self._data.training, self._data.rng
        tower = data.image_tower
        image = self._activation(tower.forward(tower.collate(data.image_rows[training.rows[images]], rng)))
        drawn = np.concatenate([texts, self._mined(image, images, texts, image_of_text)])
        tower = data.text_tower
        text = self._activation(tower.forward(tower.collate(data.text_rows[drawn], rng)))
        weight = training.weight[images]
        losses = []
        if self._objective is not None:
            losses.append(
                self._objective(
                    image,
                    text,
                    self._tensor(image_of_text),
                    self._tensor(training.not_negative(images, drawn)),
                    self._tensor(weight[image_of_text]),
                )
            )
        if self._classifier is not None:
            instance = training.instance[images]
            for features, owner, factor in zip(
                (image, text[: len(texts)]),
                (np.arange(len(images)), image_of_text),
                self._instance_weight,
                strict=True,
            ):
                if factor > 0:
                    of_rows = self._tensor(instance[owner]), self._tensor(weight[owner])
                    losses.append(factor * self._classifier(features, *of_rows))
        return torch.stack(losses).sum()

    def _mined(self, image: Tensor, images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray) -> np.ndarray:
        """For each pair, find its image's hardest negative among texts drawn from the whole training set.

        They are embedded as in use, without a gradient. Returns each found text once.
        """
        if not self._data.text_pool_size or self._objective is None:
            return texts[:0]
        training, tower = self._data.training, self._data.text_tower
        n_pool = min(self._data.text_pool_size, len(training.texts))
        pool = np.sort(self._data.rng.choice(len(training.texts), n_pool, replace=False))
        with torch.no_grad(), _evaluating(tower.modules):
            text = self._activation(tower.forward(tower.collate(self._data.text_rows[pool])))
            scores = self._objective.scores(image.detach(), text)
        scores.masked_fill_(self._tensor(training.not_negative(images, pool)), -torch.inf)
        hardest = scores.argmax(dim=1).cpu().numpy()[np.unique(image_of_text)]
        return np.setdiff1d(pool[hardest], texts)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._data.text_tower.device)


@contextmanager
def _evaluating(modules: list[nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode inside the block, and each part back into its own mode after it."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes:
            part.training = mode
