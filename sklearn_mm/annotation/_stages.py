"""The stages in which the network of an annotator is trained."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from sklearn_mm.annotation._decisions import best_threshold
from sklearn_mm.annotation._model import InputRows
from sklearn_mm.annotation._scores import LabelScores
from sklearn_mm.annotation._steps import CountStep, LabelStep, cached_features, label_loss, label_weights
from sklearn_mm.annotation._training_rows import TrainingRows
from sklearn_mm.annotation._tuning import HeldOut, gather
from sklearn_mm.sampling import n_batches, row_batches
from sklearn_mm.training import Stage

__all__ = ["make_stages"]


def make_stages(
    annotator: Any,
    scores: LabelScores,
    inputs: InputRows,
    training: TrainingRows,
    held_out: TrainingRows | None,
    rng: np.random.Generator,
    *,
    n_ranks: int,
    prefix: str = "",
) -> list[Stage]:
    """Return what is trained one after the other: labels, and the count head where it waits for them.

    Parameters
    ----------
    annotator : MultiLabelAnnotator
        For its parameters and its classes.
    scores : LabelScores
        Of the network that is trained.
    inputs : InputRows
    training, held_out : TrainingRows
        Without images held out no epoch is validated.
    rng : Generator
        Of batches and augmentations.
    n_ranks : int
        Of how many labels of an image validation looks at.
    prefix : str
        Of the names of stages.
    """
    model, counted = scores.model, scores.counted
    joint = counted is not None and annotator.count_training == "joint"
    weight = label_weights(annotator.class_weight, annotator.classes_, training.prevalence())
    loss = label_loss(
        "softmax" if scores.kind == "single" else annotator.loss,
        None if weight is None else weight.to(model.device),
        gamma_negative=annotator.gamma_negative,
        gamma_positive=annotator.gamma_positive,
        margin=annotator.margin,
    )
    step = LabelStep(model, inputs, training, loss, counted if joint else None, rng)
    validate = None
    if held_out is not None:
        validate = partial(_validation, [HeldOut(scores, inputs, held_out)], n_ranks)
    shared: Any = {
        "n_epochs": annotator.max_epochs,
        "learning_rate": annotator.learning_rate,
        "batches": lambda: row_batches(len(training), annotator.batch_size, rng),
        "n_batches": n_batches(len(training), annotator.batch_size),
    }
    keeps = model.modules if annotator.early_stopping else ()
    stages = [
        Stage(f"{prefix}label", parts=model.modules, make_step=lambda: step, validate=validate, keeps=keeps, **shared)
    ]
    if counted is not None and not joint:
        head: Any = model.network.count_head

        def count_step() -> CountStep:
            features = cached_features(model, inputs, training.rows)
            return CountStep(features, partial(model.head, head), counted, training.counts, training.weight)

        stages.append(Stage(f"{prefix}count", parts=[head], make_step=count_step, **shared))
    return stages


def _validation(parts: Sequence[HeldOut], n_ranks: int) -> tuple[str, float]:
    """Score the labels of images held out by the best overall F1 of a threshold."""
    scores, _, truth = gather(parts, n_ranks)
    return "val_f1", best_threshold(scores, truth)[1]
