"""The maps of all scales of a network, fused from fine to coarse (Niu et al. 2019)."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm.nn.image_cnn import BackboneTower
from sklearn_mm.nn.scales import Scale, find_scales, is_channels_last
from sklearn_mm.nn.taps import spatial_mean
from sklearn_mm.registry import stored_as

__all__ = ["FusionBlock", "MultiScaleCNN"]


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

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a pickled state; in those of format 1 the scales were called otherwise."""
        if "stages" in state:
            state = {"scales" if name == "stages" else name: value for name, value in state.items()}
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's has no types

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
        taps: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
                taps[name] = output

            return hook

        # the hooks are there for this pass only: a module with hooks can neither be copied nor pickled
        with ExitStack() as stack:
            for scale in self.scales:
                stack.enter_context(self.backbone.get_submodule(scale.tap).register_forward_hook(keep(scale.tap)))
            self.backbone(pixels)
        return list(_channels_first(taps[scale.tap] for scale in self.scales))

    def _embed(self, pixels: Tensor) -> Tensor:
        fused, *taps = self.maps(pixels)
        for block, tap in zip(self.fusion, taps, strict=True):
            fused = block(fused, tap)
        embedded: Tensor = self.head(spatial_mean(fused))
        return embedded.float()  # half precision under autocast


def _channels_first(maps: Iterator[Tensor]) -> Iterator[Tensor]:
    return (each.permute(0, 3, 1, 2) if is_channels_last(each) else each for each in maps)
