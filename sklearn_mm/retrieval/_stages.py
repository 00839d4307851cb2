"""What a ranker's parameters say of its training: what pairs are ranked by, and what is trained one after the other."""

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import numpy as np

from sklearn_mm._device import resolve_device
from sklearn_mm.features._instance_training import SharedClassifier
from sklearn_mm.features._tower import Tower, is_trainable
from sklearn_mm.losses import NEGATIVES
from sklearn_mm.metrics import retrieval_report
from sklearn_mm.retrieval._epochs import JointBatches, JointStep
from sklearn_mm.retrieval._objective import Objective
from sklearn_mm.retrieval._training_rows import TrainingRows
from sklearn_mm.training import Stage

__all__ = ["instance_weights", "make_objective", "make_stages", "make_validator"]


def instance_weights(given: Any) -> tuple[float, float]:
    """Return the weights of the images' and the texts' instance loss, from one number or two."""
    weights = (given, given) if isinstance(given, Real) else tuple(given)
    if len(weights) != 2 or not all(isinstance(weight, Real) and float(weight) >= 0 for weight in weights):
        raise ValueError(
            f"instance_weight must be a number of at least 0, or two of them for images and texts, got {given!r}"
        )
    return float(weights[0]), float(weights[1])


def _negative_names(given: Any) -> tuple[str, str]:
    """Return the names of the negatives among texts and among images, from one name or two."""
    names = (given, given) if isinstance(given, str) else tuple(given)
    if len(names) != 2 or not set(names) <= set(NEGATIVES):
        raise ValueError(f"negatives must be one or two of {sorted(NEGATIVES)}, got {given!r}")
    return names


def make_objective(ranker: Any) -> Objective:
    """Make what pairs are ranked by, on the device; a trained temperature goes on from where it is."""
    return Objective(
        similarity=ranker.similarity,
        loss=ranker.loss,
        margin=ranker.margin,
        temperature=ranker.temperature_ if ranker.train_temperature else float(ranker.temperature),
        train_temperature=ranker.train_temperature,
        negatives=_negative_names(ranker.negatives),
        negative_side=ranker.negative_side,
    ).to(resolve_device(ranker.device))


def make_stages(
    ranker: Any,
    data: JointBatches,
    objective: Objective,
    validate: Callable[[], tuple[str, float]] | None,
    *,
    pretrains: bool,
) -> list[Stage]:
    """Return what is trained one after the other: by the instance loss alone, if at all, then by ranking too.

    Parameters
    ----------
    ranker : JointEmbeddingRanker
        With its towers built.
    data : JointBatches
    objective : Objective
    validate : callable or None
        Where images are held out: returns the name and the value of a score.
    pretrains : bool
        Whether `pretrain_epochs` come first.
    """
    weights = instance_weights(ranker.instance_weight)
    pretrains = pretrains and ranker.pretrain_epochs > 0
    towers = [*data.image_tower.modules, *data.text_tower.modules]
    classifier = None
    if any(weights) or pretrains:
        classifier = SharedClassifier(
            ranker.n_components,
            int(data.training.instance.max()) + 1,
            temperature=ranker.instance_temperature,
            dropout=ranker.instance_dropout,
        )
    shared: Any = {
        "parts": [*towers, objective, *([] if classifier is None else [classifier])],
        "batches": partial(iter, data),
        "n_batches": len(data),
        "validate": validate,
        "clip_tensors": ranker.clip_tensors,
    }
    encoder, final_relu = data.image_tower.encoder, ranker.final_relu
    joint = Stage(
        "joint",
        ranker.max_epochs,
        ranker.learning_rate,
        make_step=lambda: JointStep(data, objective, classifier, weights, final_relu),
        begin=partial(_freeze_backbone, encoder, False),
        keeps=() if validate is None else towers,
        **shared,
    )
    if not pretrains:
        return [joint]
    instance = Stage(
        "instance",
        ranker.pretrain_epochs,
        ranker.learning_rate if ranker.pretrain_learning_rate is None else ranker.pretrain_learning_rate,
        make_step=lambda: JointStep(data, None, classifier, (1.0, 1.0), final_relu),
        begin=partial(_freeze_backbone, encoder, True),
        **shared,
    )
    return [instance, joint]


def _freeze_backbone(encoder: Any, frozen: bool) -> None:
    """Hold still, or let train as its parameters say, what an image encoder has been given pretrained."""
    if is_trainable(encoder) and hasattr(encoder.module_, "freeze_backbone"):
        encoder.module_.freeze_backbone(frozen)


def make_validator(
    image_tower: Tower, text_tower: Tower, image_rows: Any, held_out: TrainingRows, similarity: str
) -> Callable[[], tuple[str, float]]:
    """Return the function that computes the RSum on the images held out, of prepared `image_rows`."""
    text_rows = text_tower.prepare(held_out.texts)
    text_to_image = np.repeat(np.arange(len(held_out)), np.diff(held_out.starts))

    def rsum() -> tuple[str, float]:
        report = retrieval_report(
            image_tower.embed(image_rows), text_tower.embed(text_rows), text_to_image, similarity=similarity
        )
        return "val_rsum", float(report["rsum"])

    return rsum
