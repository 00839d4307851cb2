"""A network for pictures that learns on: wholly, in part or not at all."""

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from sklearn_mm._checks import did_you_mean
from sklearn_mm.nn.backbones import build_backbone, pixel_convention
from sklearn_mm.nn.pixels import cpu_chunk_size, normalise, scale_and_shift
from sklearn_mm.nn.pooling import spatial_mean
from sklearn_mm.nn.scales import find_scales
from sklearn_mm.nn.taps import TapReader
from sklearn_mm.nn.towers import FeatureTower
from sklearn_mm.registry import stored_as

__all__ = ["BackboneTower", "ImageCNN"]

# the base of all of them, those that sum over processes too
_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
_GPU_CHUNK = 128  # pictures that fit a GPU where no gradient is wanted


@stored_as("nn.BackboneTower")
class BackboneTower(nn.Module):
    """A network without its class layer, from 8-bit crops on; a subclass says what its maps become.

    Parameters
    ----------
    backbone : str or nn.Module
        As in `build_backbone`; a module is copied.
    weights : "default", path, mapping or None
    image_size : int or None
        Side of the square, in pixels; None for the one it was trained on.
    trainable : {"none", "all"}, int or str
        Which of its layers learn: none, all, those of the last n scales (see `find_scales`), or those of the modules
        whose names a regular expression matches in full.
    fix_batch_norm : bool
        Layers that learn keep the statistics of their batch norms too.
    backbone_learning_rate : float
        Factor on the learning rate of the network.
    average_mirrored : bool
        In evaluation mode, the answer for a picture is the mean of its own and its mirror image's.

    Attributes
    ----------
    backbone : nn.Module
        With `nn.Identity` in place of its class layer.
    n_features : int
        Width of what the class layer was given.
    n_components : int
        Width of the answer.

    Raises
    ------
    ValueError
        The network cannot look at pictures of this size, or has no layer that `trainable` names.
    """

    mean: Tensor
    std: Tensor
    n_components: int

    def __init__(
        self,
        backbone: str | nn.Module,
        *,
        weights: Any,
        image_size: int | None,
        trainable: int | str,
        fix_batch_norm: bool,
        backbone_learning_rate: float,
        average_mirrored: bool,
    ) -> None:
        super().__init__()
        # without the weights: where a saved network is built again, they come from its tensors
        self.config: dict[str, Any] = {
            "backbone": backbone,
            "image_size": image_size,
            "trainable": trainable,
            "fix_batch_norm": fix_batch_norm,
            "backbone_learning_rate": backbone_learning_rate,
            "average_mirrored": average_mirrored,
        }
        self.learning_rate_factors = {"backbone": backbone_learning_rate}
        pixels = pixel_convention(backbone)
        self.image_size = pixels.image_size if image_size is None else image_size
        self.register_buffer("mean", torch.tensor(pixels.mean))
        self.register_buffer("std", torch.tensor(pixels.std))
        built = build_backbone(backbone, weights)
        # the layout of crops as they are read, and the fast one of convolutions on CPUs
        self.backbone = built.module.to(memory_format=torch.channels_last)
        _drop_auxiliary(self.backbone)
        self.n_features = self._drop_class_layer(built.class_layers)
        self._prune()
        # last: scales and names are those of what is left of the network
        self._learning = self._resolve(trainable)
        self._fix_batch_norm, self._average_mirrored = fix_batch_norm, average_mirrored
        self.freeze_backbone(False)

    def restore_buffers(self, names: Collection[str]) -> None:
        """Fill buffers that no state dict holds, such as tables of positions, as the network has them by its name."""
        fresh = dict(build_backbone(self.config["backbone"], None).module.named_buffers())
        for name in names:
            own = self.get_buffer(name)
            own.copy_(fresh[name.removeprefix("backbone.")])

    def _prune(self) -> None:
        """Take out of the backbone what is never used."""

    def _drop_class_layer(self, class_layers: Sequence[str] | None) -> int:
        """Put nothing in the place of the class layer; return the width of what it was given."""
        # a saved network is built on the meta device first: pixels go where its weights are
        some = next(self.backbone.parameters(), None)
        side = self.image_size
        black = torch.zeros(1, 3, side, side, device=None if some is None else some.device)
        try:
            with torch.no_grad(), TapReader(self.backbone, "last", class_layers=class_layers) as reader:
                reader(black.to(memory_format=torch.channels_last))
        # a RuntimeError as well, but one that says nothing about the size of pictures
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ValueError(f"the network cannot look at pictures of {side}x{side} pixels: {error}") from error
        (tap,) = reader.taps or []
        for name in class_layers or ([tap.module] if tap.module else []):
            # an Identity keeps the forward pass as it is: what the class layer was given becomes the answer
            self.backbone.set_submodule(name, nn.Identity())
        return tap.width

    def _resolve(self, trainable: int | str) -> frozenset[str]:
        """Return the names of the modules that learn, with all below them; "" is the network itself."""
        names = [name for name, _ in self.backbone.named_modules()]
        if trainable == "none":
            return frozenset()
        if trainable == "all":
            return frozenset(names)
        if isinstance(trainable, str):
            try:
                roots = {name for name in names if re.fullmatch(trainable, name)}
            except re.error as error:
                raise ValueError(f"trainable={trainable!r} is not a regular expression: {error}") from error
            if not any(True for name in roots for _ in self.backbone.get_submodule(name).parameters()):
                known = did_you_mean(trainable, ["none", "all", *filter(None, names)])
                raise ValueError(f"trainable={trainable!r} matches no module of the network with weights; {known}")
        else:
            scales = find_scales(self.backbone, self.image_size)
            if trainable > len(scales):
                raise ValueError(f"trainable={trainable}, but the network has {len(scales)} scales; use 'all'")
            # parameters of the network itself are in no scale, but are among all of it
            if trainable == len(scales):
                return frozenset(names)
            roots = {name for scale in scales[-trainable:] for name in scale.modules}
        return frozenset(
            name for name in names if any(name == root or name.startswith(f"{root}.") or not root for root in roots)
        )

    # Which parts learn --------------------------------------------------------------------------------------------

    @property
    def is_backbone_frozen(self) -> bool:
        """Whether no layer of the network learns, for now or ever."""
        return self._is_frozen or not self._learning

    def freeze_backbone(self, frozen: bool) -> None:
        """Let no layer of the network learn, or again those that `trainable` says."""
        self._is_frozen = frozen
        for name, module in self.backbone.named_modules():
            for parameter in module.parameters(recurse=False):
                # of the module alone: each of its children is named, and decides for itself
                parameter.requires_grad_(not frozen and name in self._learning)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all that learns; the rest stays in evaluation mode, with its statistics."""
        super().train(mode)
        for name, module in self.backbone.named_modules():
            learns = not self._is_frozen and name in self._learning
            is_fixed = self._fix_batch_norm and isinstance(module, _BATCH_NORMS)
            # set by hand, as module.train() would reach into children that learn otherwise
            module.training = mode and learns and not is_fixed
        return self

    # From crops to the answer -----------------------------------------------------------------------------------

    @property
    def chunk_size(self) -> int:
        """Pictures that pass the network at once where no gradient is wanted."""
        return cpu_chunk_size() if self.mean.device.type == "cpu" else _GPU_CHUNK

    def forward(self, crops: Tensor) -> Tensor:
        """Map crops (n, s, s, 3), uint8, to (n, n_components) float32."""
        if self.training:
            # in one go: batch norms that learn need the statistics of the whole batch
            return self._embed(self.normalised(crops))
        chunks = torch.split(crops, self.chunk_size)
        return torch.cat([self._answer(self.normalised(chunk)) for chunk in chunks])

    def _answer(self, pixels: Tensor) -> Tensor:
        embedded = self._embed(pixels)
        return (embedded + self._embed(pixels.flip(3))) / 2 if self._average_mirrored else embedded

    def _embed(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels (n, 3, s, s) to (n, n_components) float32."""
        raise NotImplementedError

    def _seen_by_backbone(self, look: Callable[[Tensor], list[Tensor]], pixels: Tensor) -> list[Tensor]:
        """Return what `look` makes of pixels (n, 3, s, s); without gradient and in chunks while no layer learns."""
        # a gradient needs the maps of all layers in any case: chunks would save nothing
        if not self.is_backbone_frozen:
            return look(pixels)
        with torch.no_grad():
            chunks = [look(chunk) for chunk in torch.split(pixels, self.chunk_size)]
        return chunks[0] if len(chunks) == 1 else [torch.cat(parts) for parts in zip(*chunks, strict=True)]

    def normalised(self, crops: Tensor) -> Tensor:
        """Return pixels (n, 3, s, s), float32, channels last, of crops (n, s, s, 3), uint8."""
        return normalise(crops, *scale_and_shift(self.mean, self.std, crops.shape[2]))


@stored_as("nn.ImageCNN")
class ImageCNN(BackboneTower):
    """Embed pictures by the last features of a network, and a perceptron on top of them.

    Parameters
    ----------
    backbone, weights, image_size, trainable, fix_batch_norm, backbone_learning_rate, average_mirrored
        As in `BackboneTower`.
    n_components : int or None
        Width of the output; None for the features themselves.
    hidden_layer_sizes : sequence of int
        Of the perceptron between the features and the output.
    dropout : float
        Share of the features, and of hidden units, dropped in training.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        *,
        weights: Any = None,
        n_components: int | None = None,
        hidden_layer_sizes: Sequence[int] = (),
        dropout: float = 0.0,
        image_size: int | None = None,
        trainable: int | str = "all",
        fix_batch_norm: bool = True,
        backbone_learning_rate: float = 1.0,
        average_mirrored: bool = False,
    ) -> None:
        super().__init__(
            backbone,
            weights=weights,
            image_size=image_size,
            trainable=trainable,
            fix_batch_norm=fix_batch_norm,
            backbone_learning_rate=backbone_learning_rate,
            average_mirrored=average_mirrored,
        )
        self.config.update(n_components=n_components, hidden_layer_sizes=list(hidden_layer_sizes), dropout=dropout)
        self.head: nn.Module = nn.Identity()
        if n_components is not None:
            self.head = FeatureTower(
                self.n_features, n_components, hidden_layer_sizes=hidden_layer_sizes, dropout=dropout
            )
        self.n_components = self.n_features if n_components is None else n_components

    def features(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels (n, 3, s, s) to what the class layer was given: (n, n_features), float32."""
        (features,) = self._seen_by_backbone(lambda chunk: [_pooled(self.backbone(chunk))], pixels)
        return features

    def _embed(self, pixels: Tensor) -> Tensor:
        return self.head(self.features(pixels))


def _pooled(answer: Tensor) -> Tensor:
    """Average maps (n, c, h, w) or tokens (n, t, c) over all positions: (n, c), float32."""
    if answer.ndim == 4:
        return spatial_mean(answer)
    return answer.mean(1, dtype=torch.float32) if answer.ndim == 3 else answer.float()


def _drop_auxiliary(network: nn.Module) -> None:
    """Take the second class layers out of GoogLeNet and Inception, which answer beside the first in training."""
    for name, off in (("aux_logits", False), ("aux1", None), ("aux2", None), ("AuxLogits", None)):
        if hasattr(network, name):
            setattr(network, name, off)
