"""Errors and warnings that a caller may want to catch by name."""

__all__ = [
    "CacheWarning",
    "GalleryWarning",
    "ImageReadError",
    "ImageReadWarning",
    "LabelWarning",
    "LeakWarning",
    "MergedRowsWarning",
    "ShardWarning",
    "TokenizationWarning",
    "TruncationWarning",
    "UnknownWordsWarning",
    "VersionMismatchWarning",
    "WeightsError",
]


class ImageReadError(ValueError):
    """A picture could not be read; the message names its row."""


class WeightsError(OSError):
    """Pretrained weights are not to be had; the message names the ways around."""


class CacheWarning(UserWarning):
    """A cache cannot be written; what is new is computed and not kept."""


class GalleryWarning(UserWarning):
    """A gallery does less than it was asked for; the message says what."""


class ImageReadWarning(UserWarning):
    """Pictures were left out or marked because they could not be read."""


class LabelWarning(UserWarning):
    """Labels cannot be learned, or are not known."""


class LeakWarning(UserWarning):
    """Rows that are scored were trained on."""


class MergedRowsWarning(UserWarning):
    """Several rows are of one picture, and were taken together."""


class ShardWarning(UserWarning):
    """A shard that was finished is missing or broken, and is written again."""


class TokenizationWarning(UserWarning):
    """Texts are not split into words as their script asks for."""


class TruncationWarning(UserWarning):
    """Texts are longer than a model reads, and are cut."""


class UnknownWordsWarning(UserWarning):
    """Texts hold no word that is known, or word vectors few of the vocabulary."""


class VersionMismatchWarning(UserWarning):
    """A model was saved by another version of this library or of torch."""
