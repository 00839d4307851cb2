"""The fusion of all scales, against a slow and obvious one."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sklearn_mm.nn.multi_scale import FusionBlock, MultiScaleCNN


def _module(**parameters):
    torch.manual_seed(0)
    return MultiScaleCNN("resnet18", **{"image_size": 32, "n_components": 6, "width": 0.1, **parameters})


def _squares(n):
    return torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_maps_are_fused_fine_to_coarse():
    module = _module().eval()
    for norm in [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    crops = _squares(3)
    x = (crops.permute(0, 3, 1, 2).float() / 255 - module.mean.view(3, 1, 1)) / module.std.view(3, 1, 1)
    with torch.no_grad():
        network = module.backbone
        taps = [network.relu(network.bn1(network.conv1(x)))]
        taps.append(network.layer1(network.maxpool(taps[-1])))
        for layer in (network.layer2, network.layer3, network.layer4):
            taps.append(layer(taps[-1]))
        fused = taps[0]
        for block, tap in zip(module.fusion, taps[1:], strict=True):
            conv, norm, _, conv2, norm2 = block.layers
            fused = norm2(conv2(norm(conv(fused)).relu())) + tap
        linear, norm, _ = module.head
        expected = torch.sigmoid(norm(linear(fused.mean((2, 3)))))
        torch.testing.assert_close(module(crops), expected, rtol=1e-4, atol=1e-5)
    assert 0 < expected.min() < expected.max() < 1


def test_the_fusion_starts_as_the_last_maps_alone_and_learns_to_add_the_finer_ones():
    module = _module().train()
    crops = _squares(4)
    last = module.head(module.maps(module.normalised(crops))[-1].mean((2, 3)))
    start = module(crops)
    torch.testing.assert_close(start, last, rtol=0, atol=0)
    optimizer = torch.optim.SGD(module.fusion.parameters(), lr=1.0)
    for _ in range(6):  # each step wakes one more block, from the last to the first
        optimizer.zero_grad()
        (module(crops) * torch.linspace(-1, 1, 4)[:, None]).sum().backward()
        optimizer.step()
    assert all(value.grad.count_nonzero() > 0 for value in module.fusion.parameters())
    assert (module(crops) - last).abs().max() > 1e-3


def test_copies_and_pickles_hold_no_hooks_of_ours_and_answer_alike():
    module = _module().eval()
    module.backbone.layer1.register_forward_hook(print)  # somebody else's travels along
    crops = _squares(2)
    content = pickle.dumps(module)
    assert b"_keep" not in content
    assert len(pickle.loads(content).backbone.layer1._forward_hooks) == 1
    module.backbone.layer1._forward_hooks.clear()
    with torch.no_grad():
        expected = module(crops)
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(other(crops), expected)
            nn.init.zeros_(other.backbone.layer4[1].bn2.weight)
            assert not torch.equal(other(crops), expected)
        assert torch.equal(module(crops), expected)


def test_blocks_have_half_of_the_channels_inside_times_width():
    assert [block.layers[0].out_channels for block in _module(width=1.0).fusion] == [32, 64, 128, 256]
    assert [block.layers[0].out_channels for block in _module(width=0.5).fusion] == [16, 32, 64, 128]
    assert [block.layers[3].out_channels for block in _module(width=0.01).fusion] == [64, 128, 256, 512]


def test_maps_that_lost_their_borders_are_brought_to_one_size():
    block = FusionBlock(4, 3, 5, 2)
    assert block(torch.zeros(2, 4, 15, 15), torch.zeros(2, 5, 7, 7)).shape == (2, 5, 7, 7)


@pytest.mark.parametrize("backbone", ["resnet18", "vgg11", "efficientnet_lite0", "convnext_tiny", "swin_t"])
def test_a_gradient_reaches_everything_that_learns_and_nothing_else(backbone):
    crops = _squares(4)
    frozen = MultiScaleCNN(backbone, image_size=32, n_components=6, width=0.1)
    frozen.train()(crops).sum().backward()
    assert all(value.grad is None for value in frozen.backbone.parameters())
    assert all(value.grad is not None for value in [*frozen.fusion.parameters(), *frozen.head.parameters()])
    whole = MultiScaleCNN(backbone, image_size=32, n_components=6, width=0.1, trainable="all").train()
    whole(crops).sum().backward()
    assert [name for name, value in whole.named_parameters() if value.grad is None] == []


def test_networks_of_one_scale_are_refused():
    with pytest.raises(ValueError, match="maps become smaller"):
        MultiScaleCNN("vit_b_32", image_size=224)


@pytest.mark.parametrize("training", [False, True])
def test_a_frozen_network_sees_a_batch_in_chunks_that_change_nothing(monkeypatch, training):
    module = _module().train(training)
    seen = []
    module.backbone.register_forward_pre_hook(lambda network, args: seen.append(len(args[0])))
    pixels = module.normalised(_squares(5))
    whole = module.maps(pixels)
    monkeypatch.setattr(MultiScaleCNN, "chunk_size", 2)
    for maps, expected in zip(module.maps(pixels), whole, strict=True):
        torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5)
        assert not maps.requires_grad
    assert seen == [5, 2, 2, 1]


def test_it_is_copied_with_its_stages():
    module = _module().eval()
    copied = pickle.loads(pickle.dumps(module))
    assert torch.equal(copied(_squares(2)), module(_squares(2)))
    assert copied.scales == module.scales
    rebuilt = MultiScaleCNN(**module.config)
    rebuilt.load_state_dict(module.state_dict())
    assert torch.equal(rebuilt.eval()(_squares(2)), module(_squares(2)))
