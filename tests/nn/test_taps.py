import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from sklearn_mm.nn.lite import EfficientNetLite
from sklearn_mm.nn.pooling import spatial_max, spatial_mean
from sklearn_mm.nn.taps import TapReader

FLOAT32_SUMS = 1e-5  # relative: sums in another order
BFLOAT16_SUMS = 2e-3  # relative: one rounding of each partial sum
VGG16_LAYERS = {f"features.{n}" for n in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)} | {
    "classifier.0",
    "classifier.3",
}


class Small(nn.Module):
    """Everything a tap may meet: batch norm, in-place and shared activations, a residual sum, functions."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 24, 1)
        self.down = nn.Conv2d(24, 32, 1, stride=2)
        self.pad = nn.Conv2d(32, 40, 1, padding=1)
        self.fc1 = nn.Linear(40, 16)
        self.fc2 = nn.Linear(16, 5)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        inner = self.bn2(self.conv2(x))
        inner += x
        x = self.relu(inner)
        x = F.silu(self.wide(x), inplace=True)
        x = F.relu6(self.down(x))
        x = self.pad(x)
        x = self.relu(self.fc1(x.mean((2, 3))))
        return self.fc2(F.dropout(x, training=self.training))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = Small().eval()
    for norm in (network.bn1, network.bn2):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.data.normal_()
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(4, 3, 34, 38, generator=torch.Generator().manual_seed(1))


def read(network, pictures, layers="auto", activation="pre", class_layers=None, pooling="mean"):
    """Return the taps, and what they read in the first batch and in a second one."""
    with torch.inference_mode(), TapReader(network, layers, activation, class_layers, pooling=pooling) as reader:
        first = reader(pictures)
        second = reader(pictures)
    assert torch.equal(first, second)
    return reader.taps, first


def taps_of(name, layers="auto"):
    """Return the taps of a torchvision network, without its weights or any arithmetic."""
    with torch.device("meta"), TapReader(torchvision.models.get_model(name).eval(), layers) as reader:
        reader(torch.zeros(1, 3, 224, 224))
    return reader.taps


def expected_of_small(network, x, activation, pooling="mean"):
    """The same, step by step."""
    post = activation == "post"
    columns = {}

    def note(name, before, after):
        value = after if post else before
        if value.ndim == 2:
            columns[name] = value
            return
        if "mean" in pooling:
            columns[name] = value.mean((2, 3))
        if "max" in pooling:
            columns[f"{name}_max"] = value.amax((2, 3))

    conv1 = network.conv1(x)
    x = network.bn1(conv1).relu()
    note("conv1", conv1, x)
    conv2 = network.conv2(x)
    note("conv2", conv2, conv2)  # a residual sum stands before the activation
    x = (network.bn2(conv2) + x).relu()
    wide = network.wide(x)
    x = F.silu(wide)
    note("wide", wide, x)
    down = network.down(x)
    x = F.relu6(down)
    note("down", down, x)
    pad = network.pad(x)
    note("pad", pad, pad)
    fc1 = network.fc1(pad.mean((2, 3)))
    note("fc1", fc1, fc1.relu())
    return columns


@pytest.mark.parametrize("activation", ["pre", "post"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_taps_read_the_average_of_each_layer_before_or_after_its_activation(
    network, pictures, activation, memory_format
):
    taps, values = read(network, pictures.contiguous(memory_format=memory_format), activation=activation)
    expected = expected_of_small(network, pictures, activation)
    assert [tap.name for tap in taps] == list(expected)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, torch.cat(list(expected.values()), dim=1), rtol=1e-4, atol=FLOAT32_SUMS)


@pytest.mark.parametrize("activation", ["pre", "post"])
@pytest.mark.parametrize("pooling", ["max", "mean+max"])
def test_maxima_stand_behind_the_means_of_their_layer(network, pictures, activation, pooling):
    taps, values = read(network, pictures, activation=activation, pooling=pooling)
    expected = expected_of_small(network, pictures, activation, pooling)
    assert [name for tap in taps for name, _ in tap.columns] == list(expected)
    assert [width for tap in taps for _, width in tap.columns] == [part.shape[1] for part in expected.values()]
    torch.testing.assert_close(values, torch.cat(list(expected.values()), dim=1), rtol=1e-4, atol=FLOAT32_SUMS)
    if pooling == "mean+max":  # the means are those that are read without maxima, to the last bit
        wanted = [part for tap in taps for part in tap.parts for _ in range(tap.width)]
        alone = read(network, pictures, activation=activation)[1]
        assert torch.equal(values[:, [part == "mean" for part in wanted]], alone)


@pytest.mark.parametrize("pooling", ["max", "mean+max"])
@pytest.mark.parametrize("with_classes", [True, False])
def test_the_maximum_of_the_last_layer_is_that_of_the_map_that_is_averaged_for_the_classes(
    pictures, pooling, with_classes
):
    """Whatever averages the map: a module or a function; the answer itself where there are no classes."""

    class Averaging(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    for average in (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), Averaging()):
        squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample((16, 18)))  # averages too, but not for the classes
        body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), squeeze, nn.Conv2d(8, 8, 3), nn.ReLU())
        network = nn.Sequential(body, average, nn.Linear(8, 3) if with_classes else nn.Identity()).eval()
        taps, values = read(network, pictures, "last", pooling=pooling)
        maps = body(pictures).detach()
        expected = [maps.mean((2, 3))] * ("mean" in pooling) + [maps.amax((2, 3))]
        torch.testing.assert_close(values, torch.cat(expected, dim=1))
        assert [name for name, _ in taps[0].columns] == ["last"] * ("mean" in pooling) + ["last_max"]


def test_a_last_layer_that_is_no_averaged_map_has_no_maximum(network, pictures):
    with pytest.raises(ValueError, match=r"layers='last' has no maximum.*pooling='mean'"):
        read(network, pictures, "last", pooling="max")


@pytest.mark.parametrize("pooling", ["max", "mean+max"])
def test_maxima_of_tokens_are_taken_over_the_tokens(pooling):
    network = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 4), nn.Flatten(), nn.Linear(20, 3))
    tokens = torch.rand(2, 5, 6)
    _, values = read(network, tokens, "0", pooling=pooling)
    torch.testing.assert_close(values[:, -9:], network[0](tokens).amax(1))


def test_reading_changes_nothing_in_the_network(network, pictures):
    with torch.inference_mode():
        before = network(pictures)
        with TapReader(network, "auto", "post") as reader:
            reader(pictures)
            assert torch.equal(reader.network(pictures), before)
        assert torch.equal(network(pictures), before)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())


def test_hooks_are_gone_after_an_error(network, pictures):
    reader = TapReader(network)
    for channels in (2, 3, 2):  # in the first batch, and in one behind it
        with suppress(RuntimeError), reader:
            reader(pictures[:, :channels])
            assert channels == 3
        assert all(not module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("activation", ["pre", "post"])
@pytest.mark.parametrize("layers", ["auto", "last"])
def test_no_map_is_kept(network, pictures, layers, activation):
    """When a layer begins, no map of an earlier one is alive but those that the network itself holds."""
    alive, most = [], 0

    def note(module, args, output):
        nonlocal most
        alive.append(weakref.ref(output))
        most = max(most, sum(one() is not None for one in alive))

    handles = [layer.register_forward_hook(note) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    with torch.inference_mode():
        network(pictures)
        bare = most
        with TapReader(network, layers, activation) as reader:
            for _ in ("first batch", "second batch"):
                most = 0
                alive.clear()
                reader(pictures)
                assert most <= bare
                assert all(one() is None for one in alive)
    for handle in handles:
        handle.remove()


def test_vgg16_gives_the_papers_12416_columns():
    taps = taps_of("vgg16")
    assert {tap.name for tap in taps} == VGG16_LAYERS
    assert sum(tap.width for tap in taps) == 12_416


@pytest.mark.parametrize(
    ("name", "n_layers", "width"),
    [
        ("resnet50", 53, 26_560),
        ("vgg19", 18, 13_696),
        ("convnext_tiny", 18, 6_624),
        ("mobilenet_v3_large", 63, 18_560),
    ],
)
def test_each_architecture_has_its_layers_without_the_class_layer(name, n_layers, width):
    taps = taps_of(name)
    assert (len(taps), sum(tap.width for tap in taps)) == (n_layers, width)


@pytest.mark.parametrize(
    ("name", "width"),
    [("vgg16", 4096), ("resnet18", 512), ("resnet50", 2048), ("mobilenet_v3_small", 1024), ("convnext_tiny", 768)],
)
def test_the_last_layer_is_what_the_class_layer_is_given(name, width):
    (tap,) = taps_of(name, "last")
    assert (tap.name, tap.width) == ("last", width)


def test_the_last_layer_of_lite_is_its_pooled_maps_behind_the_activation():
    network = EfficientNetLite().eval()
    pixels = torch.rand(2, 3, 64, 64)
    _, values = read(network, pixels, "last", class_layers=("classifier",))
    with torch.inference_mode():
        maps = network.head(network.blocks(network.stem(pixels)))
    torch.testing.assert_close(values, maps.mean((2, 3)))


def test_a_network_without_a_class_layer_answers_its_last_layer_itself(pictures):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    _, values = read(network, pictures, "last")
    torch.testing.assert_close(values, network(pictures).mean((2, 3)))
    assert [tap.name for tap in read(network, pictures)[0]] == ["0"]  # the activation answers, not the layer


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (2, ["pad", "fc1"]),
        (6, ["conv1", "conv2", "wide", "down", "pad", "fc1"]),
        (r"conv\d", ["conv1", "conv2"]),
        (r"fc\d", ["fc1", "fc2"]),
        (["wide", "bn1"], ["wide", "bn1"]),
        (("relu",), ["relu"]),
    ],
)
def test_layers_are_chosen_by_number_expression_and_name(network, pictures, layers, names):
    assert [tap.name for tap in read(network, pictures, layers)[0]] == names


def test_any_module_named_is_read(network, pictures):
    _, values = read(network, pictures, ["bn1"])
    with torch.inference_mode():
        torch.testing.assert_close(values, network.bn1(network.conv1(pictures)).mean((2, 3)))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["conv3"], "unknown layer 'conv3'; did you mean 'conv2' or 'conv1'"),
        ("conv_1", "matches no convolution.*'conv1'"),
        ("(", "not a regular expression"),
        (7, "has 6 layers below its class layer"),
    ],
)
def test_unknown_layers_are_named(network, pictures, layers, message):
    with pytest.raises(ValueError, match=message):
        read(network, pictures, layers)


def test_unknown_layers_are_named_before_the_network_runs(network):
    with pytest.raises(ValueError, match="unknown layer 'conv3'"):
        TapReader(network, ["conv3"])
    with pytest.raises(ValueError, match="matches no convolution"):
        TapReader(network, "conv_1")


def test_a_layer_that_does_not_run_is_named(pictures):
    class Network(nn.Sequential):
        def forward(self, x):
            return self[0](x)

    with pytest.raises(ValueError, match="layer '1' does not run"):
        read(Network(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)), pictures, ["1"])


def test_a_layer_that_answers_no_tensor_is_an_error(pictures):
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    class Network(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x))[0]

    with pytest.raises(ValueError, match="layer '1' answers no tensor"):
        read(Network(nn.Conv2d(3, 4, 3), Pair()), pictures, ["1"])


def test_a_network_of_one_layer_has_nothing_below_its_class_layer(pictures):
    with pytest.raises(ValueError, match="no convolution and no fully connected layer runs below"):
        read(nn.Conv2d(3, 4, 3), pictures)
    with pytest.raises(ValueError, match="below"):
        read(nn.Sequential(nn.Conv2d(3, 4, 3)), pictures)


def test_a_network_that_runs_otherwise_than_before_is_an_error(pictures):
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.first(x) if len(x) == 1 else self.second(x)

    with TapReader(Moody(), ["first"]) as reader:
        reader(pictures[:1])
        with pytest.raises(RuntimeError, match="'first' did not run as before"):
            reader(pictures)


def test_a_reader_reads_inside_a_with_block_only(network, pictures):
    with pytest.raises(RuntimeError, match="with block"):
        TapReader(network)(pictures)


def test_layers_over_tokens_are_averaged_over_the_tokens():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 4), nn.Flatten(), nn.Linear(20, 3))
    tokens = torch.rand(2, 5, 6)
    taps, values = read(network, tokens)
    assert [tap.width for tap in taps] == [9, 4]
    wide = network[0](tokens)
    torch.testing.assert_close(values, torch.cat([wide.mean(1), network[2](wide_gelu := F.gelu(wide)).mean(1)], dim=1))
    _, values = read(network, tokens, "0", "post")
    torch.testing.assert_close(values, wide_gelu.mean(1))


def test_subclasses_of_convolutions_are_read_as_they_answer(pictures):
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    network = nn.Sequential(Doubled(3, 9, 1), nn.Flatten(), nn.Linear(9 * 34 * 38, 2))
    _, values = read(network, pictures)
    torch.testing.assert_close(values, network[0](pictures).mean((2, 3)))


@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (3, 16, 32, 32), (2, 8, 17, 17), (1, 4, 1, 1), (2, 3, 112, 112)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_maps_are_averaged_in_float32(shape, dtype, memory_format):
    maps = torch.rand(shape, generator=torch.Generator().manual_seed(0)).add(1).to(dtype)
    mean = spatial_mean(maps.contiguous(memory_format=memory_format))
    assert mean.dtype == torch.float32
    tolerance = FLOAT32_SUMS if dtype == torch.float32 else BFLOAT16_SUMS
    np.testing.assert_allclose(mean, maps.double().mean((2, 3)), rtol=tolerance)


@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (3, 16, 32, 32), (1, 4, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_maxima_of_maps_are_exact(shape, dtype, memory_format):
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    maxima = spatial_max(maps.contiguous(memory_format=memory_format))
    assert maxima.dtype == torch.float32
    assert torch.equal(maxima, maps.float().amax((2, 3)))


@pytest.mark.parametrize("pooling", ["mean", "mean+max"])
@pytest.mark.parametrize("activation", ["pre", "post"])
def test_a_batch_in_chunks_gives_the_same(network, pictures, activation, pooling):
    _, expected = read(network, pictures, activation=activation, pooling=pooling)
    for chunk_size in (1, 3, 10):
        with (
            torch.inference_mode(),
            TapReader(network, "auto", activation, chunk_size=chunk_size, pooling=pooling) as reader,
        ):
            for _ in ("first batch", "second batch"):
                torch.testing.assert_close(reader(pictures), expected, rtol=1e-4, atol=FLOAT32_SUMS)


def test_autocast_does_not_reach_the_averages(network, pictures):
    with torch.inference_mode(), TapReader(network) as reader:
        full = reader(pictures)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = reader(pictures)
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.02 * full.norm()
    assert not torch.equal(half, half.bfloat16().float())


@pytest.mark.parametrize("activation", ["pre", "post"])
@pytest.mark.parametrize(("layers", "pooling"), [("auto", "mean"), ("last", "mean"), ("auto", "mean+max")])
def test_threads_read_what_they_read_alone(network, pictures, layers, activation, pooling):
    rows = [pictures[row % 4 : row % 4 + 1] + row for row in range(32)]
    barrier = Barrier(8)

    def work(number):
        barrier.wait(timeout=60)
        with torch.inference_mode():
            read = [reader(row) for row in rows[number::8]]
            reader.network(pictures)  # for something else: that is not read
            return read + [reader(row) for row in rows[number::8]]

    with TapReader(network, layers, activation, pooling=pooling) as reader, ThreadPoolExecutor(8) as pool:
        together = list(pool.map(work, range(8)))
    with torch.inference_mode(), TapReader(network, layers, activation, pooling=pooling) as alone:
        for number in range(8):
            for values, row in zip(together[number], 2 * rows[number::8], strict=True):
                assert torch.equal(values, alone(row))
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())


# What a cache keeps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "max", "mean+max"])
@pytest.mark.parametrize("layers", ["auto", "last", 1, ".*"])
def test_one_pass_reads_what_every_choice_of_layers_reads(pooling, layers):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2),
    ).eval()  # fmt: skip
    pixels = torch.randn(3, 3, 12, 12)
    if layers == "last":  # rows behind a hidden layer have no maximum
        network = network[:6].append(nn.Linear(5, 2)).eval()
    with torch.inference_mode(), TapReader(network, layers, pooling=pooling, leave_out=()) as everything:
        for _ in range(2):  # the first batch finds the taps
            answered = everything(pixels)
        ends = np.cumsum([width for _, width in everything.columns])
        places = {
            column: slice(end - width, end) for (column, width), end in zip(everything.columns, ends, strict=True)
        }
        for activation in ("pre", "post"):
            with TapReader(network, layers, activation, pooling=pooling) as reader:
                expected = reader(pixels)
                columns = everything.table.columns(layers, activation, pooling)
                assert [(name, width) for _, name, width in columns] == [c for t in reader.taps for c in t.columns]
                found = torch.cat([answered[:, places[column]] for column, _, _ in columns], dim=1)
                torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_what_is_left_out_is_not_read():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1)).eval()
    with torch.inference_mode(), TapReader(network, leave_out={"0", "..last"}) as reader:
        assert reader(torch.randn(1, 3, 8, 8)).shape == (1, 4)
        assert [column for column, _ in reader.columns] == [("0..post", "mean")]
