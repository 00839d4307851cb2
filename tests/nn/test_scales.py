"""Scales of networks: where maps become smaller."""

import pytest
import torch
from torch import nn

from sklearn_mm.nn.backbones import build_backbone
from sklearn_mm.nn.scales import find_scales


def _found(network, image_size):
    return [(scale.tap, scale.width, scale.size) for scale in find_scales(network.eval(), image_size)]


def test_the_stages_of_a_residual_network_are_its_layers():
    scales = find_scales(build_backbone("resnet18", None).module, 64)
    assert [scale.size for scale in scales] == [32, 16, 8, 4, 2]
    assert scales[0].modules == ["conv1", "bn1", "relu"]
    assert scales[3].modules == ["layer3.0", "layer3.1"]
    assert scales[4].behind == ["avgpool", "fc"]
    assert scales[4].tap == "layer4.1"


@pytest.mark.parametrize(
    ("name", "sizes", "widths"),
    [
        ("vgg11", [64, 32, 16, 8, 4, 2], [64, 128, 256, 512, 512, 512]),
        ("efficientnet_lite0", [32, 16, 8, 4, 2], [16, 24, 40, 112, 1280]),
        ("mobilenet_v2", [32, 16, 8, 4, 2], [16, 24, 32, 96, 1280]),
        ("convnext_tiny", [16, 8, 4, 2], [96, 192, 384, 768]),
        ("swin_t", [16, 8, 4, 2], [96, 192, 384, 768]),
    ],
)
def test_maps_are_followed_through_networks_of_every_build(name, sizes, widths):
    with torch.device("meta"):
        network = build_backbone(name, None).module
    scales = find_scales(network, 64)
    assert [scale.size for scale in scales] == sizes
    assert [scale.width for scale in scales] == widths


def test_every_block_that_runs_is_in_one_stage():
    network = build_backbone("efficientnet_lite0", None).module
    blocks = [name for scale in find_scales(network, 64) for name in scale.modules]
    assert len(set(blocks)) == len(blocks)
    for name, _ in network.named_parameters():
        assert sum(name.startswith(f"{block}.") for block in blocks) == 1, name


def test_a_pool_to_one_position_ends_the_maps_but_a_stride_does_not():
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 1))
    assert _found(pooled, 4) == [("1", 4, 2)]
    strided = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 5, 3, 2, 1))
    assert _found(strided, 4) == [("0", 4, 2), ("1", 5, 1)]


def test_a_network_without_maps_has_no_stages():
    assert _found(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), 2) == []
