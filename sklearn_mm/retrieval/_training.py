"""The stages of a ranker's training, and how what is held out is scored."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from sklearn_mm.losses import InstanceClassifier, InstanceLoss, PairLoss
from sklearn_mm.metrics import retrieval_report
from sklearn_mm.retrieval._data import CaptionedImages, JointBatches
from sklearn_mm.retrieval._model import JointModel, PairObjective
from sklearn_mm.training import Stage

__all__ = ["make_model", "make_stages", "make_validator"]


def make_model(
    batches: JointBatches,
    loss: PairLoss,
    similarity: str,
    instance_loss: InstanceLoss | None,
    n_components: int,
    *,
    chunk_size: int | None = None,
) -> JointModel:
    """Make what is trained on some batches, under torch's current random state."""
    objective, classifier = PairObjective(loss, similarity), None
    if instance_loss is not None and (any(instance_loss.weights) or instance_loss.pretrain_epochs):
        classifier = InstanceClassifier(
            n_components,
            # Of the images that are trained on: those held out have been taken away, and have no class.
            int(batches.images.instance.max()) + 1,
            temperature=instance_loss.temperature,
            dropout=instance_loss.dropout,
        )
    relu = instance_loss is not None and instance_loss.relu
    towers = (batches.image_tower, batches.text_tower)
    return JointModel(*towers, objective, classifier, relu=relu, chunk_size=chunk_size)


def make_stages(
    model: JointModel,
    batches: JointBatches,
    instance_loss: InstanceLoss | None,
    *,
    n_epochs: int,
    learning_rate: float,
    validate: Callable[[], tuple[str, float]] | None,
    pretrains: bool,
    stops_early: bool = True,
    keeps_start: bool = False,
) -> list[Stage]:
    """Return what is trained one after the other: by the instance loss alone, if at all, then by ranking too.

    Parameters
    ----------
    model : JointModel
    batches : JointBatches
    instance_loss : InstanceLoss or None
    n_epochs : int
        Of ranking.
    learning_rate : float
    validate : callable or None
        Where images are held out: returns the name and the value of a score.
    pretrains : bool
        Whether the epochs of the instance loss alone come first.
    stops_early : bool
        Whether the score stops training, and the best weights are kept.
    keeps_start : bool
        Whether those before the first epoch of ranking may be the best.
    """
    weights = (0.0, 0.0) if instance_loss is None else instance_loss.weights
    in_chunks = model.parts_in_chunks
    towers = nn.ModuleList([model.image_tower, model.text_tower])
    joint = Stage(
        "joint",
        model,
        batches,
        n_epochs,
        learning_rate,
        begin=partial(model.begin, ranks=True, instance_weights=weights, freezes=False),
        validate=validate,
        # Towers alone go back to their best epoch. The classifier is not kept after fit, and what a loss has learnt has
        # no part in an embedding.
        keeps=towers if stops_early and validate is not None else None,
        keeps_start=keeps_start,
        in_chunks=in_chunks,
    )
    if instance_loss is None or not pretrains or not instance_loss.pretrain_epochs:
        return [joint]
    rate = instance_loss.pretrain_learning_rate
    # Stage I of Zheng et al.: weights 0, 1 and 1 for ranking, images and texts, the image network frozen. It keeps no
    # best weights: the RSum is for the history, and stops the ranking alone.
    instance = Stage(
        "instance",
        model,
        replace(batches, pool_size=0),  # no pair is ranked, so none needs a negative
        instance_loss.pretrain_epochs,
        learning_rate if rate is None else rate,
        begin=partial(model.begin, ranks=False, instance_weights=(1.0, 1.0), freezes=True),
        validate=validate,
        in_chunks=in_chunks,
    )
    return [instance, joint]


def make_validator(
    batches: JointBatches, image_rows: Any, held_out: CaptionedImages, similarity: str
) -> Callable[[], tuple[str, float]]:
    """Return the function that computes the RSum on the images held out, of prepared `image_rows`."""
    image_tower, text_tower = batches.image_tower, batches.text_tower
    # Once, not in every epoch: a frozen text encoder may take long.
    text_rows = text_tower.prepare(held_out.texts)
    text_to_image = np.repeat(np.arange(len(held_out)), np.diff(held_out.starts))  # (n_texts,)

    def rsum() -> tuple[str, float]:
        report = retrieval_report(
            image_tower.embed(image_rows),
            text_tower.embed(text_rows),
            text_to_image,
            similarity=similarity,
            wording=held_out.wording,  # what training does not push apart is right here too
        )
        return "val_rsum", float(report["rsum"])

    return rsum
