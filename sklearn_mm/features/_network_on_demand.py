"""The network of an embedding: built when it is needed, known by what decides on it, left out of pickles."""

import os
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from sklearn_mm.features._activations import TappedNetwork
from sklearn_mm.images import PictureReader
from sklearn_mm.nn.backbones import build_backbone, weights_identity
from sklearn_mm.nn.families import PixelConvention
from sklearn_mm.nn.weights import read_state
from sklearn_mm.persistence import PickleStateMixin

__all__ = ["NetworkOnDemandMixin"]


class NetworkOnDemandMixin(PickleStateMixin):
    """An embedding that builds its network when a picture has to pass it.

    It has the parameters `backbone`, `weights`, `layers`, `activation`, `image_size`, `device` and `precision`, and the
    attribute `layers_` once fitted.
    """

    backbone: Any
    weights: Any
    layers: Any
    activation: str
    image_size: int | None
    device: Any
    precision: str

    _not_pickled = ("_network", "_opening")

    def _forget_network(self) -> None:
        self._opening = Lock()  # held by the thread that builds the network, or digests its weights
        # each with the parameters it belongs to, which may be set anew between fit and transform
        self._network: tuple[Any, TappedNetwork] | None = None
        self._identity: tuple[Any, str] | None = None
        self._state: tuple[str, dict[str, Tensor]] | None = None  # weights from a file, as a pickle carries them

    def _open_network(self, pixels: PixelConvention, device: torch.device, dtype: torch.dtype) -> TappedNetwork:
        """Return the network of the parameters as they are; the one before, if it is the same."""
        # Parameters may be set between fit and transform: the network is that of the parameters of now, or none.
        key = self._network_key()
        opened = self._network
        if opened is None or opened[0] != key:
            # The first calls on a model that was opened from a pickle may come from many threads: one of them builds.
            with self._opening:
                opened = self._network
                if opened is None or opened[0] != key:
                    opened = self._network = (key, self._built_network(pixels, device, dtype))
        return opened[1]

    def _built_network(self, pixels: PixelConvention, device: torch.device, dtype: torch.dtype) -> TappedNetwork:
        weights: str | os.PathLike[str] | dict[str, Tensor] | None = self.weights
        # Opened from a pickle: the file that `weights` names may not be on this machine.
        if self._state is not None and self._state[0] == str(weights):
            weights = self._state[1]
        return TappedNetwork(
            build_backbone(self.backbone, weights),
            pixels,
            layers=self.layers,
            activation=self.activation,
            device=device,
            dtype=dtype,
        )

    def _network_key(self) -> tuple[Any, ...]:
        # A module is told by its identity, as comparing weights would take a pass over all of them. layers by repr, as
        # a list may be changed in place.
        backbone = self.backbone if isinstance(self.backbone, str) else id(self.backbone)
        read = (repr(self.layers), self.activation, self.image_size)
        return (backbone, str(self.weights), *read, str(self.device), self.precision)

    def _configuration(self, reader: PictureReader, dtype: torch.dtype) -> str:
        """Return all that decides on an activation besides the picture."""
        key = self._network_key()
        with self._opening:
            identity = self._identity
            if identity is None or identity[0] != key:
                # Kept, as it digests all weights.
                identity = self._identity = (key, weights_identity(self.backbone, self.weights))
        return f"{identity[1]}\n{self.layers!r} {self.activation} {reader!r} {dtype}"

    def __getstate__(self) -> dict[str, Any]:
        """Leave the network out; it is built again when it is needed. Weights from a file travel along."""
        state = super().__getstate__()
        from_file = self.weights is not None and str(self.weights) != "default"
        if from_file and getattr(self, "layers_", []) and self._state is None:
            opened = self._network
            if opened is None:  # everything came from the cache
                weights = read_state(Path(str(self.weights)))
            else:
                weights = {key: value.cpu() for key, value in opened[1].module.state_dict().items()}
            state["_state"] = (str(self.weights), weights)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what `__getstate__` left."""
        super().__setstate__(state)
        self._network = None
        self._opening = Lock()
