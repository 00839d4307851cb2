"""What a fit of an annotator is to do: checked before any picture is read, and which images it learns what from."""

from typing import Any

import numpy as np

from sklearn_mm.annotation._base import check_layer_sizes
from sklearn_mm.annotation._choosing import check_number
from sklearn_mm.annotation._steps import label_weights
from sklearn_mm.annotation._training_rows import TrainingRows
from sklearn_mm.features._tower import is_trainable

__all__ = ["check_request", "divide"]

_ENOUGH_HELD_OUT = 500  # images to learn from how many labels an image gets
_FOLDS = 4


def check_request(annotator: Any, classes: np.ndarray) -> None:
    """Check what no single parameter tells."""
    check_layer_sizes(annotator, "hidden_layer_sizes")
    check_layer_sizes(annotator, "tag_hidden_layer_sizes", least=0 if annotator.tag_features is None else 1)
    check_layer_sizes(annotator, "count_hidden_layer_sizes")
    check_number(annotator.n_labels, len(classes))
    label_weights(annotator.class_weight, classes, np.ones(len(classes)))
    if _is_bound(annotator) and not isinstance(annotator.n_folds, str) and annotator.n_folds is not None:
        raise ValueError(
            f"n_folds={annotator.n_folds} goes neither with early_stopping, with warm_start nor with an encoder that "
            "is trained; set n_folds=None to hold images out"
        )


def divide(
    annotator: Any, training: TrainingRows, rng: np.random.Generator, *, tunes: bool
) -> tuple[list[tuple[TrainingRows, TrainingRows]], TrainingRows, TrainingRows | None]:
    """Return folds, what the network is trained on, and what is held out from it.

    Parameters
    ----------
    annotator : MultiLabelAnnotator
        For its parameters.
    training : TrainingRows
    rng : Generator
    tunes : bool
        Whether rules for the number of labels are learnt.
    """
    if not (tunes or annotator.calibrate or annotator.early_stopping):
        return [], training, None
    n_folds = annotator.n_folds
    if n_folds == "auto":
        few = annotator.validation_fraction * len(training) < _ENOUGH_HELD_OUT
        n_folds = _FOLDS if few and not _is_bound(annotator) else None
    if n_folds is not None:
        return training.folds(n_folds, rng), training, None
    return [], *training.split(annotator.validation_fraction, rng)


def _is_bound(annotator: Any) -> bool:
    """Return whether there can be one network only."""
    return annotator.early_stopping or annotator.warm_start or is_trainable(annotator.image_encoder)
