"""The network of an embedding: built when it is needed, known by what decides on it, left out of pickles."""

import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm._content import weights_digest
from sklearn_mm._device import resolve_device
from sklearn_mm.features._activations import TappedNetwork
from sklearn_mm.features._layer_cache import LayerCache
from sklearn_mm.images import PictureReader, RowCache
from sklearn_mm.nn.backbones import (
    backbone_training_data,
    build_backbone,
    network_identity,
    weights_identity,
)
from sklearn_mm.nn.engines import engine_identity
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

    It has the parameters `backbone`, `weights`, `layers`, `activation`, `pooling`, `image_size`, `device`, `precision`,
    `engine`, `cache`, `cache_size` and `cache_dtype`, and the attributes `layers_` and `engine_` once fitted.
    """

    backbone: Any
    weights: Any
    layers: Any
    activation: str
    pooling: str
    image_size: int | None
    device: Any
    precision: str
    engine: str
    cache: Any
    cache_size: int | None
    cache_dtype: str

    # known by the parameters they belong to, and by the module itself, which is another one where it is opened
    _not_pickled = ("_network", "_identity", "_built_as", "_opening")

    @property
    def trained_on_(self) -> tuple[str, ...] | None:
        """The data that the network's weights were learnt from: empty for random ones, None if not known."""
        # fitted on activations: whose they are nobody said
        return None if getattr(self, "layers_", None) == [] else backbone_training_data(self.backbone, self.weights)

    @property
    def _layers_read(self) -> Any:
        # those that agree with the text are chosen among all
        return "auto" if isinstance(self.layers, str) and self.layers == "aligned" else self.layers

    def _forget_network(self) -> None:
        self._opening = Lock()  # held by the thread that builds the network, or digests its weights
        # each with the parameters it belongs to, which may be set anew between fit and transform
        self._network: tuple[Any, TappedNetwork] | None = None
        self._built_as: str | None = None
        self._identity: tuple[Any, str] | None = None  # what tells the network that was fitted with from others
        self._state: tuple[str, dict[str, Tensor]] | None = None  # weights that are not to be had where it is opened

    def _open_network(
        self,
        pixels: PixelConvention,
        device: torch.device,
        dtype: torch.dtype,
        leave_out: frozenset[str] | None = None,
    ) -> TappedNetwork:
        """Return the network of the parameters as they are; the one before, if it is the same.

        `leave_out` is that of a `TapReader`.
        """
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
                        layers=self._layers_read,
                        activation=self.activation,
                        pooling=self.pooling,
                        device=device,
                        dtype=dtype,
                        engine=self._engine_used,
                        leave_out=leave_out,
                    )
                    opened = self._network = (key, built)
        return opened[1].reading(leave_out)

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
        self._built_as = None
        known = self._known_identity(key)
        if self.cache is None and known is None:
            # Without the weights, which nobody has asked for yet. What cannot be told from others only a cache would
            # have to tell.
            with suppress(ValueError):
                self._built_as = network_identity(self.backbone)
        else:
            identity = weights_identity(self.backbone, weights)
            if known not in (None, identity):
                raise ValueError(_CHANGED)
            self._identity = (key, identity)
        return build_backbone(self.backbone, weights)

    def _known_identity(self, key: tuple[Any, ...]) -> str | None:
        """Return what tells the network of these parameters from others, if that is known without a look at it."""
        identity, network = self._identity, self._network  # each once, as other threads may set them
        if identity is not None and identity[0] == key:
            return identity[1]
        is_copy = isinstance(self.backbone, nn.Module) or self.weights not in (None, "default")
        if is_copy and self._built_as is not None and network is not None and network[0] == key:
            # The copy that runs has the weights of then, whatever has become of the module or the file.
            return f"{self._built_as} weights:{weights_digest(network[1].module.state_dict())}"
        return None

    def _weights_now(self) -> str | os.PathLike[str] | dict[str, Tensor] | None:
        # Opened from a pickle: the file that `weights` names may not be on this machine, or be another one.
        if self._state is not None and self._state[0] == str(self.weights):
            return self._state[1]
        weights: str | os.PathLike[str] | None = self.weights
        return weights

    @property
    def _engine_used(self) -> str:
        # what "auto" is in half precision is settled when pictures are first learnt from
        return getattr(self, "engine_", "auto") if self.engine == "auto" else self.engine

    def _network_key(self) -> tuple[Any, ...]:
        # A module is told by being the same object, as comparing weights would take a pass over all of them; the key
        # holds it, so that no other one can come to stand at its address. layers by repr, as a list may be changed in
        # place.
        read = (repr(self._layers_read), self.activation, self.pooling, self.image_size)
        return (self.backbone, str(self.weights), *read, str(self.device), self.precision, self._engine_used)

    def _open_cache(self, reader: PictureReader, dtype: torch.dtype) -> LayerCache | None:
        """Return the cache of the activations, if there is to be one."""
        if self.cache is None:
            return None
        # All that decides on an activation is in the address, so that one folder serves any estimators.
        configuration = self._configuration(reader, dtype)
        if self.cache_dtype != "float32":
            configuration += f" stored:{self.cache_dtype}"
        rows = RowCache(self.cache, configuration, self.cache_size)
        return LayerCache(rows, self._layers_read, self.activation, self.pooling, self.cache_dtype)

    def _configuration(self, reader: PictureReader, dtype: torch.dtype) -> str:
        """Return all that decides on an activation besides the picture, the layer and how it is pooled."""
        key = self._network_key()
        with self._opening:
            identity = self._known_identity(key) or weights_identity(self.backbone, self._weights_now())
            self._identity = (key, identity)  # kept, as it digests all weights; what is built is compared with it
        return f"{identity}\n{reader!r} {dtype}{self._engine_identity(dtype)}"

    def _engine_identity(self, dtype: torch.dtype) -> str:
        """Return the engine, as an ending of the cache's address, where it rounds otherwise than the others."""
        identity = engine_identity(self._engine_used, resolve_device(self.device), dtype)
        return f" engine:{identity}" if identity else ""

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
        key, network = self._network_key(), self._network
        if network is not None and network[0] != key:
            network = None
        if self.weights is None or self.weights == "default":
            fitted = self._known_identity(key) if isinstance(self.backbone, nn.Module) else None
            if fitted is None or weights_identity(self.backbone) == fitted:
                return None  # found by its name; or the module itself travels, and is as it was
            if network is None:
                raise ValueError(_CHANGED)
        if network is not None:
            return {name: value.cpu() for name, value in network[1].module.state_dict().items()}
        weights = read_state(Path(self.weights))  # everything came from the cache
        if self._known_identity(key) not in (None, weights_identity(self.backbone, weights)):
            raise ValueError(_CHANGED)
        return weights

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what `__getstate__` left."""
        super().__setstate__(state)
        self._network = None
        self._identity = None
        self._built_as = None
        self._opening = Lock()
