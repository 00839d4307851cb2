"""The network of an annotator with its encoder, as it is driven in training and in use."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_mm._device import autocast
from sklearn_mm.features._tower import Tower, is_trainable
from sklearn_mm.nn.annotation import AnnotationNetwork, TagBags

__all__ = ["AnnotationModel", "InputRows"]

_BLOCK = 1 << 22  # label scores computed in one go


@dataclass(frozen=True)
class InputRows:
    """What an annotator sees of some images.

    Attributes
    ----------
    visual : prepared rows, or None
        Features, or what a trainable encoder prepared.
    tags : csr_array of shape (n_images, n_tags), float32, or None
    """

    visual: Any
    tags: Any

    def __len__(self) -> int:
        rows = self.tags if self.visual is None else self.visual
        return int(rows.shape[0]) if hasattr(rows, "shape") else len(rows)

    def __getitem__(self, rows: Any) -> "InputRows":
        return InputRows(*(None if part is None else part[rows] for part in (self.visual, self.tags)))


@dataclass(frozen=True)
class AnnotationModel:
    """An encoder, or none, and the network behind it.

    Attributes
    ----------
    encoder : estimator or None
        A trainable encoder, a fitted transformer (frozen), or None for features as they come.
    network : AnnotationNetwork
    device, dtype : torch.device, torch.dtype
    """

    encoder: Any
    network: AnnotationNetwork
    device: torch.device
    dtype: torch.dtype

    @property
    def modules(self) -> list[nn.Module]:
        """What is trained, in the order of the data."""
        return [self.encoder.module_, self.network] if is_trainable(self.encoder) else [self.network]

    @property
    def _tower(self) -> Tower:
        return Tower(self.encoder, nn.Identity(), self.device, self.dtype)

    def prepare(self, visual: Any, tags: Any) -> InputRows:
        """Do once what need not be done every epoch."""
        return InputRows(None if visual is None else self._tower.prepare(visual), tags)

    def fuse(self, rows: InputRows, rng: np.random.Generator | None = None) -> Tensor:
        """Compute the fused features of a batch, (n, n_fused); with `rng`, of one for training."""
        visual, tags = None, None
        if rows.visual is not None:
            visual = self._tower.collate(rows.visual, rng)
        if rows.tags is not None:
            parts = (rows.tags.indices.astype(np.int64), rows.tags.data, rows.tags.indptr[:-1].astype(np.int64))
            tags = TagBags(*(torch.from_numpy(part).to(self.device) for part in parts))
        if visual is not None and is_trainable(self.encoder):
            visual = self._tower.forward(visual)
        with autocast(self.device, self.dtype):
            return self.network.fuse(visual, tags)

    def head(self, part: Callable[[Tensor], Tensor], fused: Tensor) -> Tensor:
        """Apply a head of the network to fused features; float32."""
        with autocast(self.device, self.dtype):
            return part(fused).float()

    def blocks(self, inputs: InputRows, rows: np.ndarray | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Go over some rows in use, and yield the fused features of a block of them on the device."""
        n_rows = len(inputs) if rows is None else len(rows)
        step = max(1, min(self._tower.batch_size, _BLOCK // self.network.label_head.out_features))
        for module in self.modules:
            module.to(self.device).eval()
        for start in range(0, n_rows, step):
            part = slice(start, min(start + step, n_rows))
            with torch.inference_mode():  # not around the yield: who stops half way would be left in it
                fused = self.fuse(inputs[part if rows is None else rows[part]])
            yield part, fused

    def to_cpu(self) -> None:
        """Leave the device."""
        for module in self.modules:
            module.cpu()
