"""Pictures with captions or labels to learn from: drawn, from packages, or in a folder of yours."""

from sklearn_mm.datasets._coco import load_coco_captions, load_coco_multilabel
from sklearn_mm.datasets._flickr import load_flickr8k, load_flickr30k
from sklearn_mm.datasets._folder import load_folder
from sklearn_mm.datasets._nus_wide import load_nus_wide
from sklearn_mm.datasets._openmoji import load_openmoji
from sklearn_mm.datasets._shapes import make_captioned_shapes

__all__ = [  # noqa: RUF022, sorted as Python sorts, not by numbers within names
    "load_coco_captions",
    "load_coco_multilabel",
    "load_flickr30k",
    "load_flickr8k",
    "load_folder",
    "load_nus_wide",
    "load_openmoji",
    "make_captioned_shapes",
]
