"""The maps of all scales of a network, fused from fine to coarse (Niu et al. 2019)."""

from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from threading import local
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm.nn.image_cnn import BackboneTower
from sklearn_mm.nn.pooling import spatial_mean
from sklearn_mm.nn.scales import Scale, find_scales, is_channels_last
from sklearn_mm.registry import stored_as

__all__ = ["FusionBlock", "MultiScaleCNN"]

_PASS = local()  # .maps: what the pass of this thread through a backbone has shown, by the name of the tap


@stored_as("nn.FusionBlock")
class FusionBlock(nn.Module):
    """Bring maps to the size and the channels of the next scale: 3x3 with stride, then 1x1, a batch norm after each.

    The last batch norm starts from scale 0 (Goyal et al., Accurate, Large Minibatch SGD, 2017, section 5.1), so that
    the fused maps start as the tap, which was pretrained, and not as the noise of random convolutions.

    Parameters
    ----------
    n_in, n_mid, n_out : int
        Channels that come, between the two convolutions, and that leave.
    stride : int
        By which the maps become smaller.
    """

    def __init__(self, n_in: int, n_mid: int, n_out: int, stride: int) -> None:
        super().__init__()
        last_norm = nn.BatchNorm2d(n_out)
        nn.init.zeros_(last_norm.weight)
        self.layers = nn.Sequential(
            nn.Conv2d(n_in, n_mid, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_mid),
            nn.ReLU(inplace=True),
            nn.Conv2d(n_mid, n_out, 1, bias=False),
            last_norm,
        )

    def forward(self, maps: Tensor, tap: Tensor) -> Tensor:
        """Add what becomes of maps (n, n_in, h, w) to the tap (n, n_out, h', w')."""
        brought: Tensor = self.layers(maps)
        if brought.shape[2:] != tap.shape[2:]:  # the network loses its borders, or rounds otherwise
            brought = nn.functional.adaptive_avg_pool2d(brought, (tap.shape[2], tap.shape[3]))
        return brought + tap


@stored_as("nn.MultiScaleCNN")
class MultiScaleCNN(BackboneTower):
    """Embed pictures by the maps of all scales of a network, each fused into the next coarser one.

    Parameters
    ----------
    backbone, weights, image_size, trainable, fix_batch_norm, backbone_learning_rate, average_mirrored
        As in `BackboneTower`.
    n_components : int
        Width of the output.
    width : float
        Factor on the channels inside of each fusion block, which are half of those that leave it.

    Attributes
    ----------
    scales : list of Scale
        Whose last maps are fused, fine to coarse.

    Raises
    ------
    ValueError
        The network has maps of one size only, or none.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        *,
        weights: Any = None,
        n_components: int = 2048,
        width: float = 1.0,
        image_size: int | None = None,
        trainable: int | str = "none",
        fix_batch_norm: bool = True,
        backbone_learning_rate: float = 1.0,
        average_mirrored: bool = False,
    ) -> None:
        # before the rest is built, which calls _prune, which finds them
        self.scales: list[Scale] = []
        super().__init__(
            backbone,
            weights=weights,
            image_size=image_size,
            trainable=trainable,
            fix_batch_norm=fix_batch_norm,
            backbone_learning_rate=backbone_learning_rate,
            average_mirrored=average_mirrored,
        )
        self.config.update(n_components=n_components, width=width)
        self.n_components = n_components
        self.fusion = nn.ModuleList(
            FusionBlock(
                fine.width, max(1, round(coarse.width / 2 * width)), coarse.width, round(fine.size / coarse.size)
            )
            for fine, coarse in zip(self.scales[:-1], self.scales[1:], strict=True)
        ).to(memory_format=torch.channels_last)
        # a sigmoid, as in the public re-implementation: features between 0 and 1
        self.head = nn.Sequential(
            nn.Linear(self.scales[-1].width, n_components, bias=False), nn.BatchNorm1d(n_components), nn.Sigmoid()
        )
        self._attach()

    def _attach(self) -> None:
        """Have the taps watched for good: hooks cannot come and go while other threads run the network."""
        for scale in self.scales:
            self.backbone.get_submodule(scale.tap).register_forward_hook(partial(_keep, scale.tap))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle and to copy, without hooks: a file holds no private function of ours."""
        return {**self.__dict__, "_modules": {**self._modules, "backbone": _without_hooks(self.backbone, {})}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a pickled state; in those of format 1 the scales were called otherwise."""
        if "stages" in state:
            state = {"scales" if name == "stages" else name: value for name, value in state.items()}
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's has no types
        self._attach()

    def _prune(self) -> None:
        """Find the scales, and put nothing in the place of layers behind the last maps."""
        self.scales = find_scales(self.backbone, self.image_size)
        if len(self.scales) < 2:
            raise ValueError(
                f"expected a network whose maps become smaller, got one with maps of {len(self.scales)} sizes at "
                f"{self.image_size} pixels; a transformer has one, and a residual network five"
            )
        for name in self.scales[-1].behind:
            if next(self.backbone.get_submodule(name).parameters(), None) is not None:
                self.backbone.set_submodule(name, nn.Identity())

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Map normalised pixels (n, 3, s, s) to the last map of each scale: (n, c, h, w), fine to coarse."""
        return self._seen_by_backbone(self._maps, pixels)

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        maps: dict[str, Tensor] = {}
        _PASS.maps = maps
        try:
            self.backbone(pixels)
        finally:
            _PASS.maps = None
        return list(_channels_first(maps[scale.tap] for scale in self.scales))

    def _embed(self, pixels: Tensor) -> Tensor:
        fused, *taps = self.maps(pixels)
        for block, tap in zip(self.fusion, taps, strict=True):
            fused = block(fused, tap)
        embedded: Tensor = self.head(spatial_mean(fused))
        return embedded.float()  # half precision under autocast


def _channels_first(maps: Iterator[Tensor]) -> Iterator[Tensor]:
    return (each.permute(0, 3, 1, 2) if is_channels_last(each) else each for each in maps)


def _keep(tap: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
    """Note the maps that a tap answers, where this thread has asked for them; a hook."""
    maps = getattr(_PASS, "maps", None)
    if maps is not None:
        maps[tap] = output


def _without_hooks(module: nn.Module, seen: dict[int, nn.Module]) -> nn.Module:
    """Return a network of the same tensors in modules of its own, which lack the hooks of `_keep`."""
    if id(module) not in seen:
        twin = seen[id(module)] = module.__new__(type(module))
        hooks = module._forward_hooks.items()
        children = module._modules.items()
        twin.__dict__.update(
            module.__dict__,
            _forward_hooks=OrderedDict((key, hook) for key, hook in hooks if not _is_ours(hook)),
            _modules={name: None if child is None else _without_hooks(child, seen) for name, child in children},
        )
    return seen[id(module)]


def _is_ours(hook: Any) -> bool:
    return isinstance(hook, partial) and hook.func is _keep
