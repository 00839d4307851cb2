"""Networks, and what they are made of."""

# All are imported, so that the registry finds the class that a saved model names.
from sklearn_mm.nn import (
    annotation,
    backbones,
    families,
    heads,
    image_cnn,
    lite,
    multi_scale,
    packed,
    pixels,
    pooling,
    scales,
    taps,
    text_cnn,
    text_ngram,
    text_rnn,
    text_sequence,
    towers,
    weights,
)

__all__ = [
    "annotation",
    "backbones",
    "families",
    "heads",
    "image_cnn",
    "lite",
    "multi_scale",
    "packed",
    "pixels",
    "pooling",
    "scales",
    "taps",
    "text_cnn",
    "text_ngram",
    "text_rnn",
    "text_sequence",
    "towers",
    "weights",
]
