"""Which negatives a loss gets to see, and which images and captions form a batch."""

from sklearn_mm.sampling._batches import caption_batches
from sklearn_mm.sampling._negatives import NEGATIVES

__all__ = ["NEGATIVES", "caption_batches"]
