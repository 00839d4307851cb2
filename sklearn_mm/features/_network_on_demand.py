"""The network of an embedding: built when it is needed, known by what decides on it, left out of pickles."""

import os
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm.features._activations import TappedNetwork
from sklearn_mm.images import PictureReader
from sklearn_mm.nn.backbones import build_backbone, weights_identity
from sklearn_mm.nn.families import Backbone, PixelConvention
from sklearn_mm.nn.weights import read_state
from sklearn_mm.persistence import PickleStateMixin

__all__ = ["NetworkOnDemandMixin"]

_CHANGED = (
    "the network is no more what it was in fit: the module given as backbone, or the file given as weights, has "
    "changed since. Its activations would not suit the statistics learnt; fit again, or bring the old weights back"
)


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
    cache: Any

    # known by the parameters they belong to, and by the module itself, which is another one where it is opened
    _not_pickled = ("_network", "_identity", "_opening")

    def _forget_network(self) -> None:
        self._opening = Lock()  # held by the thread that builds the network, or digests its weights
        # each with the parameters it belongs to, which may be set anew between fit and transform
        self._network: tuple[Any, TappedNetwork] | None = None
        self._identity: tuple[Any, str] | None = None  # what tells the network that was fitted with from others
        self._state: tuple[str, dict[str, Tensor]] | None = None  # weights that are not to be had where it is opened

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
                    built = TappedNetwork(
                        self._build_identified(key),
                        pixels,
                        layers=self.layers,
                        activation=self.activation,
                        device=device,
                        dtype=dtype,
                    )
                    opened = self._network = (key, built)
        return opened[1]

    def _build_identified(self, key: tuple[Any, ...]) -> Backbone:
        """Build the network, and note what was built: a module and a file may change at any time.

        Raises
        ------
        ValueError
            It is not the one that was known before under the same parameters.
        """
        weights = self._weights_now()
        if isinstance(weights, str | os.PathLike) and weights != "default":
            weights = read_state(Path(weights))  # once: what is digested is what is built
        try:
            identity = weights_identity(self.backbone, weights)
        except ValueError:
            if self.cache is not None:
                raise
            return build_backbone(self.backbone, weights)  # a network that no cache has to know
        if self._identity is None or self._identity[0] != key:
            self._identity = (key, identity)
        elif self._identity[1] != identity:
            raise ValueError(_CHANGED)
        return build_backbone(self.backbone, weights)

    def _weights_now(self) -> str | os.PathLike[str] | dict[str, Tensor] | None:
        # Opened from a pickle: the file that `weights` names may not be on this machine, or be another one.
        if self._state is not None and self._state[0] == str(self.weights):
            return self._state[1]
        weights: str | os.PathLike[str] | None = self.weights
        return weights

    def _network_key(self) -> tuple[Any, ...]:
        # A module is told by being the same object, as comparing weights would take a pass over all of them; the key
        # holds it, so that no other one can come to stand at its address. layers by repr, as a list may be changed in
        # place.
        read = (repr(self.layers), self.activation, self.image_size)
        return (self.backbone, str(self.weights), *read, str(self.device), self.precision)

    def _configuration(self, reader: PictureReader, dtype: torch.dtype) -> str:
        """Return all that decides on an activation besides the picture."""
        key = self._network_key()
        with self._opening:
            known = self._identity
            if known is None or known[0] != key:
                # Kept, as it digests all weights; what is built later is compared with it.
                known = self._identity = (key, weights_identity(self.backbone, self._weights_now()))
        return f"{known[1]}\n{self.layers!r} {self.activation} {reader!r} {dtype}"

    def __getstate__(self) -> dict[str, Any]:
        """Leave the network out; it is built again when it is needed. Weights from a file travel along."""
        state = super().__getstate__()
        if getattr(self, "layers_", []) and self._state is None:
            weights = self._weights_to_carry()
            if weights is not None:
                state["_state"] = (str(state["weights"]), weights)  # as it will be called
        return state

    def _weights_to_carry(self) -> dict[str, Tensor] | None:
        """Return weights that whoever opens the pickle would not find, as they were in `fit`."""
        from_file = self.weights is not None and self.weights != "default"
        fitted = self._identity[1] if self._identity is not None and self._identity[0] == self._network_key() else None
        if not from_file and (fitted is None or not isinstance(self.backbone, nn.Module)):
            return None
        if not from_file and weights_identity(self.backbone) == fitted:
            return None  # the module itself travels, and is as it was
        if self._network is not None and self._network[0] == self._network_key():
            return {key: value.cpu() for key, value in self._network[1].module.state_dict().items()}
        # Everything came from the cache.
        weights = read_state(Path(self.weights)) if from_file else None
        if fitted not in (None, weights_identity(self.backbone, weights)):
            raise ValueError(_CHANGED)
        return weights

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what `__getstate__` left."""
        super().__setstate__(state)
        self._network = None
        self._opening = Lock()
        self._identity = None
