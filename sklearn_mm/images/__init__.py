"""Pictures of every kind, read as a network is to see them; a cache of what it made of them."""

from sklearn_mm.images._augment import Augmentation
from sklearn_mm.images._batches import PictureRows, read_crops
from sklearn_mm.images._cache import RowCache
from sklearn_mm.images._find_unreadable import find_unreadable
from sklearn_mm.images._reading import PICTURE_FORMATS, PictureReader, check_formats, describe
from sklearn_mm.images._rows import Pictures, ReadFailure, check_sequence, is_table, read_ahead

__all__ = [
    "PICTURE_FORMATS",
    "Augmentation",
    "PictureReader",
    "PictureRows",
    "Pictures",
    "ReadFailure",
    "RowCache",
    "check_formats",
    "check_sequence",
    "describe",
    "find_unreadable",
    "is_table",
    "read_ahead",
    "read_crops",
]
