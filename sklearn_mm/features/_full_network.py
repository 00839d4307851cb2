"""The full-network embedding: every layer of a network, standardised and discretised."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from tqdm import tqdm

from sklearn_mm._device import autocast, resolve_device, resolve_dtype
from sklearn_mm.images._reading import cut_crops, read_rgb
from sklearn_mm.nn.backbones import build_backbone
from sklearn_mm.nn.taps import TapReader, find_taps, select_taps


class FullNetworkEmbedding(TransformerMixin, BaseEstimator):
    """Embed pictures by the activations of all layers of a network, standardised and discretised."""

    def __init__(
        self,
        backbone="resnet50",
        *,
        weights="default",
        layers="auto",
        activation="pre",
        discretize=True,
        thresholds=(-0.25, 0.15),
        crops="center",
        image_size=None,
        batch_size=32,
        device="auto",
        precision="auto",
        n_jobs=None,
        cache=None,
        on_error="raise",
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.activation = activation
        self.discretize = discretize
        self.thresholds = thresholds
        self.crops = crops
        self.image_size = image_size
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.cache = cache
        self.on_error = on_error
        self.verbose = verbose

    def fit(self, X, y=None):
        """Learn the mean and the standard deviation of each activation."""
        self._fit(self._activations(X, reset=True))
        return self

    def fit_transform(self, X, y=None):
        """Fit, and return the embedding of X."""
        activations = self._activations(X, reset=True)
        self._fit(activations)
        return self._finish(activations)

    def transform(self, X):
        """Embed X: (n, d) int8 when discretised, float32 otherwise."""
        check_is_fitted(self, "mean_")
        return self._finish(self._activations(X, reset=False))

    def _fit(self, activations):
        self.mean_ = activations.mean(0, dtype=np.float64)
        self.scale_ = activations.std(0, dtype=np.float64)
        self.n_features_out_ = activations.shape[1]
        self.n_samples_seen_ = len(activations)

    def _finish(self, activations):
        scale = np.where(self.scale_ > 0, self.scale_, np.inf)
        z = (activations - self.mean_) / scale
        if not self.discretize:
            return z.astype(np.float32)
        low, high = self.thresholds
        return (z > high).astype(np.int8) - (z < low).astype(np.int8)

    def _activations(self, X, reset):
        if getattr(X, "ndim", 1) == 2 and getattr(X, "dtype", None) != object:
            return validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)
        return np.concatenate(list(self._run(list(X))))

    def _run(self, rows: list[Any]) -> Iterator[np.ndarray]:
        device = resolve_device(self.device)
        dtype = resolve_dtype(self.precision, device)
        if not hasattr(self, "_reader"):
            built = build_backbone(self.backbone, self.weights)
            pixels = built.pixels if self.image_size is None else built.pixels.resized(self.image_size)
            taps = find_taps(built.module, torch.zeros(1, 3, pixels.image_size, pixels.image_size))
            chosen = None if self.layers == "last" else select_taps(taps, self.layers)
            network = built.module.to(device, memory_format=torch.channels_last)
            self._reader = TapReader(network, chosen, taps[-1].name)
            self._pixels = pixels
            self.layers_ = None if chosen is None else [(tap.name, tap.width) for tap in chosen]
        pixels = self._pixels
        mean, std = (
            torch.tensor(value, device=device).view(1, 3, 1, 1) for value in (pixels.mean, pixels.std)
        )

        def read(source: Any) -> np.ndarray:
            return cut_crops(read_rgb(source), pixels.image_size, pixels.resize_size, pixels.interpolation)

        with ThreadPoolExecutor(2) as pool, torch.inference_mode(), autocast(device, dtype):
            starts = range(0, len(rows), self.batch_size)
            batches = [rows[start : start + self.batch_size] for start in starts]
            ahead = pool.map(read, batches[0]) if batches else None
            for number in tqdm(range(len(batches)), disable=not self.verbose):
                now, ahead = ahead, pool.map(read, batches[number + 1]) if number + 1 < len(batches) else None
                batch = torch.from_numpy(np.concatenate(list(now))).to(device).permute(0, 3, 1, 2)
                yield self._reader((batch.float() / 255 - mean) / std).float().cpu().numpy()

    def __getstate__(self):
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key not in ("_reader", "_pixels")}
