"""The network of an annotator, built for the images it is trained on."""

from typing import Any

import numpy as np
import torch

from sklearn_mm.annotation._model import InputRows
from sklearn_mm.annotation._training_rows import TrainingRows
from sklearn_mm.features._tower import feature_statistics, is_trainable
from sklearn_mm.nn.annotation import AnnotationNetwork

__all__ = ["make_network"]


def make_network(
    annotator: Any, encoder: Any, inputs: InputRows, training: TrainingRows, n_count_outputs: int
) -> AnnotationNetwork:
    """Build a network under torch's current random state, and let it start from what labels there are.

    Parameters
    ----------
    annotator : MultiLabelAnnotator
        For its parameters.
    encoder : fitted estimator or None
        Of the pictures.
    inputs : InputRows
    training : TrainingRows
        Whose statistics standardise features.
    n_count_outputs : int
        0 for no count head.
    """
    n_features, statistics = _features_of(encoder, inputs, training)
    network = AnnotationNetwork(
        n_features,
        0 if inputs.tags is None else inputs.tags.shape[1],
        training.labels.shape[1],
        n_count_outputs,
        hidden_layer_sizes=annotator.hidden_layer_sizes,
        tag_hidden_layer_sizes=annotator.tag_hidden_layer_sizes,
        count_hidden_layer_sizes=annotator.count_hidden_layer_sizes,
        dropout=annotator.dropout,
    )
    if network.visual is not None and statistics is not None:
        network.visual.standardize_by(*statistics)
    prevalence = training.prevalence().clip(0.1 / len(training), 1 - 0.1 / len(training))
    network.start_from(torch.from_numpy(np.log(prevalence) - np.log1p(-prevalence)).float())
    return network


def _features_of(encoder: Any, inputs: InputRows, training: TrainingRows) -> tuple[int, Any]:
    """Return the width of the features that the network gets, and what standardises them, where that is known."""
    if inputs.visual is None:
        return 0, None
    if not is_trainable(encoder):
        statistics = feature_statistics(inputs.visual, training.rows)
        return inputs.visual.shape[1], tuple(map(torch.from_numpy, statistics))
    if hasattr(encoder, "output_statistics"):  # of features that were learnt elsewhere
        return encoder._n_features_out, encoder.output_statistics(inputs.visual[training.rows])
    return encoder._n_features_out, None
