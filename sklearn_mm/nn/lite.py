"""EfficientNet-Lite: mobile inverted bottlenecks without squeeze-excitation, ReLU6 throughout."""

import math
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from sklearn_mm.registry import stored_as

__all__ = ["LITE_IMAGE_SIZES", "EfficientNetLite", "load_lite_state"]

# of the published weights; other sizes work as well
LITE_IMAGE_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}

_WIDTHS_AND_DEPTHS = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
# (blocks, kernel, stride of the first block, expansion, channels) of each stage of EfficientNet-B0
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280
_BN_EPS = 1e-3  # TensorFlow's, with which the published weights were trained


@stored_as("nn.SameConv2d")
class SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's 'SAME': an odd pixel of padding goes to the right and the bottom."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, out_channels, ceil(h / stride), ceil(w / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        tall, wide = (max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in input.shape[-2:])
        if tall % 2 == 0 and wide % 2 == 0:
            # the convolution pads evenly without a copy of the map
            padding = (tall // 2, wide // 2)
            return F.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        padded = F.pad(input, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _conv(n_in: int, n_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> SameConv2d:
    return SameConv2d(n_in, n_out, kernel, stride, groups=groups, bias=False)


@stored_as("nn.InvertedBottleneck")
class InvertedBottleneck(nn.Module):
    """Expand by a 1x1 convolution, filter each channel, project back; add the input where shapes agree."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        n_mid = n_in * expansion
        # The order of the modules is part of the format: published files name their entries otherwise, and
        # load_lite_state goes by the order.
        self.expand: nn.Sequential | None = None
        if expansion != 1:
            self.expand = nn.Sequential()
            self.expand.conv = _conv(n_in, n_mid)
            self.expand.bn = nn.BatchNorm2d(n_mid, eps=_BN_EPS)
            self.expand.act = nn.ReLU6(inplace=True)
        self.depthwise = nn.Sequential()
        self.depthwise.conv = _conv(n_mid, n_mid, kernel, stride, groups=n_mid)
        self.depthwise.bn = nn.BatchNorm2d(n_mid, eps=_BN_EPS)
        self.depthwise.act = nn.ReLU6(inplace=True)
        self.project = nn.Sequential()
        self.project.conv = _conv(n_mid, n_out)
        self.project.bn = nn.BatchNorm2d(n_out, eps=_BN_EPS)
        self.has_shortcut = stride == 1 and n_in == n_out

    def forward(self, maps: Tensor) -> Tensor:
        """Map (n, n_in, h, w) to (n, n_out, h / stride, w / stride)."""
        inner = maps if self.expand is None else self.expand(maps)
        inner = self.project(self.depthwise(inner))
        return inner + maps if self.has_shortcut else inner


@stored_as("nn.EfficientNetLite")
class EfficientNetLite(nn.Module):
    """EfficientNet-Lite 0, 1 or 2, an ImageNet classifier.

    Parameters
    ----------
    name : {"efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"}
        Which one; they differ in width and depth.
    n_classes : int, default=1000
        Width of the class layer.

    Notes
    -----
    The stem and the last convolution keep their width whatever the scaling, and the first and the last stage
    keep their depth, as in the published networks.

    References
    ----------
    M. Tan and Q. V. Le, "EfficientNet", ICML 2019; the Lite variants in tensorflow/tpu,
    models/official/efficientnet/lite.

    Examples
    --------
    >>> import torch
    >>> from sklearn_mm.nn.lite import EfficientNetLite
    >>> network = EfficientNetLite("efficientnet_lite0").eval()
    >>> sum(parameter.numel() for parameter in network.parameters())
    4652008
    >>> network(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1000])
    """

    def __init__(self, name: str = "efficientnet_lite0", n_classes: int = 1000) -> None:
        super().__init__()
        width, depth = _WIDTHS_AND_DEPTHS[name]
        self.stem = nn.Sequential()
        self.stem.conv = _conv(3, _STEM, 3, 2)
        self.stem.bn = nn.BatchNorm2d(_STEM, eps=_BN_EPS)
        self.stem.act = nn.ReLU6(inplace=True)
        self.blocks = nn.Sequential()
        n_in = _STEM
        for stage, (n_blocks, kernel, stride, expansion, channels) in enumerate(_STAGES):
            n_out = _round_to_eight(channels * width)
            if stage not in (0, len(_STAGES) - 1):
                n_blocks = math.ceil(n_blocks * depth)
            for block in range(n_blocks):
                self.blocks.append(InvertedBottleneck(n_in, n_out, kernel, stride if block == 0 else 1, expansion))
                n_in = n_out
        self.head = nn.Sequential()
        self.head.conv = _conv(n_in, _HEAD)
        self.head.bn = nn.BatchNorm2d(_HEAD, eps=_BN_EPS)
        self.head.act = nn.ReLU6(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(_HEAD, n_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (n, 3, h, w), ``(x - 127) / 128`` for x in 0..255, to logits (n, n_classes)."""
        maps = self.head(self.blocks(self.stem(pixels)))
        return self.classifier(self.pool(maps).flatten(1))


def _round_to_eight(channels: float) -> int:
    # to the nearest multiple of 8, but never more than a tenth below, as published
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def load_lite_state(network: EfficientNetLite, state: Mapping[str, Tensor]) -> None:
    """Load a state dict whose entries come in the network's order under other names, strictly.

    Raises
    ------
    ValueError
        The number of entries, what an entry is (the last part of its name) or a shape differs.
    """
    own = network.state_dict()
    if len(own) != len(state):
        raise ValueError(f"expected {len(own)} entries in the state dict, got {len(state)}")
    renamed = {}
    # the kind of the entry and its shape are all there is to check an order by
    for (name, value), (theirs, tensor) in zip(own.items(), state.items(), strict=True):
        if name.rpartition(".")[2] != theirs.rpartition(".")[2] or value.shape != tensor.shape:
            raise ValueError(
                f"expected {name} of shape {tuple(value.shape)}, got {theirs} of shape {tuple(tensor.shape)}"
            )
        renamed[name] = tensor
    network.load_state_dict(renamed, strict=True)
