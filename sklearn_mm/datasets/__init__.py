"""Pictures with captions to learn from: drawn, from packages, or in a folder of yours."""

from sklearn_mm.datasets._flickr import load_flickr8k
from sklearn_mm.datasets._openmoji import load_openmoji
from sklearn_mm.datasets._shapes import make_captioned_shapes

__all__ = ["load_flickr8k", "load_openmoji", "make_captioned_shapes"]
