"""Which images and captions form a batch, and which are held out."""

from sklearn_mm.sampling._batches import caption_batches, n_batches, row_batches
from sklearn_mm.sampling._hold_out import MIN_FOR_VALIDATION, held_out_rows

__all__ = ["MIN_FOR_VALIDATION", "caption_batches", "held_out_rows", "n_batches", "row_batches"]
