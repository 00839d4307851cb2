"""Blocks of transformers and ConvNeXts as layers, held to timm's own `forward_intermediates` on random weights."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import ConvNeXt, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig

from sklearn_mm.nn.backbones import build_backbone
from sklearn_mm.nn.blocks import find_blocks
from sklearn_mm.nn.taps import TapReader

TOLERANCE = 1e-5  # float32 sums in another order, relative to values of about 1

# (model, options of its constructor, side of the pictures); small, of each kind
VITS = [
    ("vit_tiny_patch16_224", {"img_size": 32, "depth": 3}, 32),
    ("deit_tiny_distilled_patch16_224", {"img_size": 32, "depth": 2}, 32),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 28, "depth": 2, "embed_dim": 48, "num_heads": 3}, 28),
    ("vit_base_patch16_siglip_224", {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3}, 32),
]
HIERARCHICAL = [
    ("convnext_atto", {"depths": (1, 2, 1, 1)}, 160),  # a map of 40 x 40 x 40: its shape does not tell the channels
    ("convnextv2_atto", {"depths": (1, 1, 1, 1)}, 64),
    ("swin_tiny_patch4_window7_224", {"img_size": 96, "window_size": 3, "embed_dim": 24, "depths": (2, 1, 1, 1)}, 96),
]


def small(name, options):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, **options).eval().requires_grad_(False)


def read(network, pixels, layers="auto", pooling="mean"):
    """Return the columns of each part by name, the same in the first batch and in a second one."""
    with torch.inference_mode(), TapReader(network, layers, pooling=pooling) as reader:
        first = reader(pixels)
        assert torch.equal(first, reader(pixels))
    columns = [column for tap in reader.taps for column in tap.columns]
    parts = first.split([width for _, width in columns], dim=1)
    return dict(zip([name for name, _ in columns], parts, strict=True))


def pixels_of(side):
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "options", "side"), VITS, ids=[name for name, _, _ in VITS])
def test_vits_give_class_token_mean_and_maximum_of_each_blocks_tokens(name, options, side):
    network, pixels = small(name, options), pixels_of(side)
    parts = read(network, pixels, pooling="mean+max")
    with torch.inference_mode():
        blocks = network.forward_intermediates(
            pixels, return_prefix_tokens=True, intermediates_only=True, output_fmt="NLC"
        )
    expected = {}
    for number, block in enumerate(blocks):
        tokens, prefix = block if isinstance(block, tuple) else (block, None)
        assert tokens.shape[1] == 4
        if prefix is not None and prefix.shape[1]:
            expected[f"blocks.{number}_class"] = prefix[:, 0]
        expected[f"blocks.{number}"] = tokens.mean(1)
        expected[f"blocks.{number}_max"] = tokens.amax(1)
    assert list(parts) == list(expected)
    assert ("blocks.0_class" in parts) == (network.num_prefix_tokens > 0)
    for key, value in expected.items():
        torch.testing.assert_close(parts[key], value, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(("name", "options", "side"), HIERARCHICAL, ids=[name for name, _, _ in HIERARCHICAL])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_hierarchical_networks_give_the_spatial_mean_of_each_block(name, options, side, memory_format):
    network, pixels = small(name, options), pixels_of(side)
    network = network.to(memory_format=memory_format)
    parts = read(network, pixels, pooling="mean+max")
    assert len(parts) == 2 * sum(options["depths"])
    with torch.inference_mode():
        stages = network.forward_intermediates(pixels, intermediates_only=True, output_fmt="NCHW")
    stem = next(iter(parts)).partition(".")[0]
    for stage, (depth, maps) in enumerate(zip(options["depths"], stages, strict=True)):
        last = f"{stem}.{stage}.blocks.{depth - 1}"
        torch.testing.assert_close(parts[last], maps.mean((2, 3)), rtol=TOLERANCE, atol=TOLERANCE)
        torch.testing.assert_close(parts[f"{last}_max"], maps.amax((2, 3)), rtol=TOLERANCE, atol=TOLERANCE)


TORCHVISION = {
    "ViT": (
        lambda: VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=32),
        {"encoder.layers.encoder_layer_1_class": lambda answer: answer[:, 0]},
        {"encoder.layers.encoder_layer_1": lambda answer: answer[:, 1:].mean(1)},
    ),
    "Swin": (
        lambda: SwinTransformer([4, 4], 12, depths=[2, 1], num_heads=[2, 2], window_size=[3, 3]),
        {},
        {"features.3.0": lambda answer: answer.mean((1, 2))},  # (n, h, w, c)
    ),
    "ConvNeXt": (
        lambda: ConvNeXt([CNBlockConfig(12, 24, 1), CNBlockConfig(24, None, 2)]),
        {},
        {"features.3.1": lambda answer: answer.mean((2, 3))},  # (n, c, h, w)
    ),
}


@pytest.mark.parametrize("kind", TORCHVISION)
def test_torchvisions_have_the_blocks_too(kind):
    make, of_class, of_patches = TORCHVISION[kind]
    torch.manual_seed(0)
    network, pixels = make().eval().requires_grad_(False), pixels_of(32)
    parts = read(network, pixels, layers=1)
    assert list(parts) == [*of_class, *of_patches]
    answers = []
    network.get_submodule(list(find_blocks(network))[-1]).register_forward_hook(lambda *call: answers.append(call[2]))
    with torch.inference_mode():
        network(pixels)
    for name, expected in {**of_class, **of_patches}.items():
        torch.testing.assert_close(parts[name], expected(answers[0]), rtol=TOLERANCE, atol=TOLERANCE)


class OwnTransformer(nn.Module):
    """Patches, a class token and torch's own encoder layers, tokens before rows or behind."""

    def __init__(self, batch_first, width=12):
        super().__init__()
        self.batch_first = batch_first
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        layer = nn.TransformerEncoderLayer(width, 2, 16, dropout=0, batch_first=batch_first)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], dim=1)
        tokens = self.layers(tokens if self.batch_first else tokens.transpose(0, 1))
        return self.head(tokens[:, 0] if self.batch_first else tokens[0])


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_of_ones_own_is_read_by_its_blocks(batch_first):
    torch.manual_seed(0)
    network = OwnTransformer(batch_first).eval().requires_grad_(False)
    pixels = pixels_of(24)
    parts = read(network, pixels)
    names = ["layers.layers.0_class", "layers.layers.0", "layers.layers.1_class", "layers.layers.1"]
    assert list(parts) == names
    kept = []
    network.layers.layers[1].register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.inference_mode():
        network(pixels)
    tokens = kept[0] if batch_first else kept[0].transpose(0, 1)
    torch.testing.assert_close(parts["layers.layers.1_class"], tokens[:, 0], rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(parts["layers.layers.1"], tokens[:, 1:].mean(1), rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(read(network, pixels, "last")["last"], tokens[:, 0], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (1, ["layers.layers.1_class", "layers.layers.1"]),
        (r"layers\.layers\.0", ["layers.layers.0_class", "layers.layers.0"]),
        (["layers.layers.0", "patches"], ["layers.layers.0_class", "layers.layers.0", "patches"]),
        ("patches", ["patches"]),
    ],
)
def test_blocks_are_chosen_by_number_expression_and_name(layers, names):
    torch.manual_seed(0)
    assert list(read(OwnTransformer(True).eval(), pixels_of(24), layers)) == names


def test_blocks_before_the_class_token_is_added_have_none():
    """CaiT adds it behind them, and says nowhere how many tokens come first."""
    network = small("cait_xxs24_224", {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2})
    parts = read(network, pixels_of(32))
    assert [name for name in parts if name.startswith("blocks.")] == ["blocks.0", "blocks.1"]
    with torch.inference_mode():
        (*_, tokens) = network.forward_intermediates(pixels_of(32), intermediates_only=True, output_fmt="NLC")
    torch.testing.assert_close(parts["blocks.1"], tokens.mean(1), rtol=TOLERANCE, atol=TOLERANCE)
    assert "blocks_token_only.1_class" in parts
    assert "blocks_token_only.1" not in parts


def test_a_network_whose_blocks_see_windows_is_read_by_its_layers():
    network = small("mobilevit_xxs", {})
    assert find_blocks(network)
    parts = read(network, pixels_of(64))
    assert "stem.conv" in parts
    assert not any(name in find_blocks(network) for name in parts)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenet_v3_small", "densenet121"])
def test_networks_of_plain_convolutions_have_no_blocks(name):
    with torch.device("meta"):
        assert find_blocks(torchvision.models.get_model(name)) == {}
    assert find_blocks(build_backbone("efficientnet_lite0", None).module) == {}
