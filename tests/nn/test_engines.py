import warnings
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from sklearn_mm.nn.engines import (
    ENGINES,
    EngineError,
    _openvino_means,
    build_engine,
    check_engine,
    chosen_engine,
    engine_identity,
    settled_engine,
)
from sklearn_mm.nn.engines._rewrite import fold_and_pool
from sklearn_mm.nn.engines._windows import read_windows_once
from sklearn_mm.nn.lite import SameConv2d
from sklearn_mm.nn.pooling import spatial_mean
from sklearn_mm.nn.taps import TapReader

ROUNDING = 2e-5  # of the largest activation: float32 sums in another order, through some ten layers
CPU = torch.device("cpu")


class Block(nn.Module):
    """What networks for phones are made of: expand, filter each channel, squeeze and excite, project, add."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.expand, self.expand_bn = nn.Conv2d(n_in, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.depthwise, self.depthwise_bn = SameConv2d(12, 12, 3, stride, groups=12, bias=False), nn.BatchNorm2d(12)
        self.excite = nn.Conv2d(12, 12, 1)
        self.project, self.project_bn = nn.Conv2d(12, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
        self.adds = stride == 1 and n_in == n_out

    def forward(self, maps):
        inner = nn.functional.relu6(self.expand_bn(self.expand(maps)), inplace=True)
        inner = nn.functional.hardswish(self.depthwise_bn(self.depthwise(inner)))
        inner = inner * self.excite(inner.mean((2, 3), keepdim=True)).sigmoid()
        inner = self.project_bn(self.project(inner))
        return inner + maps if self.adds else inner


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 10, 2), Block(10, 10, 1))
        # the residual branch of a ResNet, of which the sum has an activation function
        self.residual, self.residual_bn = nn.Conv2d(10, 10, 3, padding=1), nn.BatchNorm2d(10)
        self.grouped = nn.Conv2d(10, 20, 3, padding=1, dilation=1, groups=2)
        self.hidden, self.classes = nn.Linear(20, 7), nn.Linear(7, 3)

    def forward(self, pixels):
        maps = self.blocks(nn.functional.max_pool2d(self.stem_bn(self.stem(pixels)).relu(), 2))
        maps = (self.residual_bn(self.residual(maps)) + maps).relu()
        rows = nn.functional.dropout(self.grouped(maps).relu_().mean((2, 3)), training=self.training)
        return self.classes(self.hidden(rows).relu())


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = Network().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)  # of both signs
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(5, 3, 36, 40, generator=torch.Generator().manual_seed(0)) * 4 - 2


def both(network, pixels, engine, dtype=torch.float32, chunk_size=2, **how):
    """What a reader and an engine read."""
    with torch.inference_mode(), TapReader(network, **how) as reader:
        expected = reader(pixels)
        run = build_engine(engine, reader, pixels, dtype, chunk_size)
        return expected, run(pixels), run(pixels[:3])


@pytest.mark.parametrize(("activation", "pooling"), [("pre", "mean+max"), ("post", "mean")])
def test_torch_with_batch_norm_folded_reads_the_same(network, pixels, activation, pooling):
    expected, found, first = both(network, pixels, "torch", activation=activation, pooling=pooling)
    tolerance = ROUNDING * float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(first, expected[:3], atol=tolerance, rtol=0)


def test_what_a_cache_keeps_is_read_the_same_and_maps_before_a_convolution_once(network, pixels, monkeypatch):
    n_averages = []

    def counted(module):
        counts = [sum(node.target is spatial_mean for node in module.graph.nodes)]
        read_windows_once(module)
        n_averages.append((*counts, sum(node.target is spatial_mean for node in module.graph.nodes)))

    monkeypatch.setattr("sklearn_mm.nn.engines._engines.read_windows_once", counted)
    expected, found, first = both(network, pixels, "torch", leave_out=())
    tolerance = ROUNDING * float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(first, expected[:3], atol=tolerance, rtol=0)
    ((before, after),) = n_averages
    # in front of the depthwise convolutions of three blocks, of strides 1 and 2
    assert after <= before - 3


@pytest.mark.parametrize("layers", ["last", ["stem_bn", "blocks.1.project", "hidden"]])
def test_any_choice_of_layers_is_read(network, pixels, layers):
    expected, found, _ = both(network, pixels, "torch", layers=layers)
    torch.testing.assert_close(found, expected, atol=ROUNDING * float(expected.abs().max()), rtol=0)


def test_a_batch_norm_without_weight_is_undone_by_none(network, pixels):
    # dividing by it would leave no number
    weight = network.blocks[0].project_bn.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[:3] = torch.tensor([0.0, 1e-12, -1e-6])
    try:
        expected, found, _ = both(network, pixels, "torch")
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    torch.testing.assert_close(found, expected, atol=ROUNDING * float(expected.abs().max()), rtol=0)


def test_transformers_are_read_by_their_blocks(pixels):
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    network = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3).eval()
    expected, found, _ = both(network, pixels[:, :, :32, :32], "torch")
    torch.testing.assert_close(found, expected, atol=ROUNDING * float(expected.abs().max()), rtol=0)


def test_openvino_reads_the_same(network, pixels):
    pytest.importorskip("openvino")
    expected, found, first = both(network, pixels, "openvino", pooling="mean+max")
    tolerance = ROUNDING * float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(first, expected[:3], atol=tolerance, rtol=0)


@pytest.mark.parametrize("layers", [["stem"], ["stem", "blocks.0.expand"], ["blocks.1.depthwise", "grouped"], "last"])
def test_openvino_reads_any_choice_of_layers(network, pixels, layers):
    pytest.importorskip("openvino")
    # cropped and filled up before the first layer, which is read from what the network is given
    for before in (nn.Identity(), nn.ZeroPad2d((1, 2, 0, 3)), nn.ZeroPad2d((-1, 2, 0, -3))):
        names = layers if layers == "last" else [f"1.{name}" for name in layers]
        expected, found, _ = both(nn.Sequential(before, network), pixels, "openvino", layers=names)
        torch.testing.assert_close(found, expected, atol=ROUNDING * float(expected.abs().max()), rtol=0)


def test_openvino_reads_what_is_behind_kernels_that_are_no_squares(pixels):
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    sides = {"kernel_size": (3, 5), "padding": (1, 2)}
    parts = [nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, **sides), nn.ReLU(), nn.Conv2d(8, 8, groups=8, **sides)]
    expected, found, _ = both(nn.Sequential(*parts, nn.ReLU(), nn.Conv2d(8, 4, 1)).eval(), pixels, "openvino")
    torch.testing.assert_close(found, expected, atol=ROUNDING * float(expected.abs().max()), rtol=0)


def test_openvino_runs_any_number_of_pictures_through_a_network_that_counts_them(pixels):
    pytest.importorskip("openvino")
    from torchvision.models import shufflenet_v2_x0_5

    torch.manual_seed(0)
    expected, found, first = both(shufflenet_v2_x0_5().eval(), pixels, "openvino", layers=["stage2", "conv5"])
    tolerance = ROUNDING * float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(first, expected[:3], atol=tolerance, rtol=0)


@pytest.mark.slow
def test_compiled_by_torch_it_reads_the_same(network, pixels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its compiler
        expected, found, first = both(network, pixels, "compile")
    tolerance = ROUNDING * float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(first, expected[:3], atol=tolerance, rtol=0)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_half_precision_rounds_about_as_autocast_does(network, pixels, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    exact, _, _ = both(network, pixels, "torch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found, _ = both(network, pixels, engine, torch.bfloat16)
    assert found.dtype == torch.float32
    # some averages are found by dividing by a norm's factor, which autocast does map by map
    assert (found - exact).norm() < 4 * (expected - exact).norm()


class Cancelling(nn.Module):
    """Of its second layer hardly anything is left but what half precision has rounded."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 8, 1)
        with torch.no_grad():
            self.second.weight.copy_(torch.cat([self.second.weight[:, :32], -self.second.weight[:, :32]], dim=1))
            self.first.weight[32:] = self.first.weight[:32] * 1.001
            self.first.bias[32:] = self.first.bias[:32]

    def forward(self, pixels):
        return self.third(self.second(self.first(pixels).relu()).relu())


def test_half_precision_that_rounds_single_activations_otherwise_is_no_other_network(pixels):
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found, _ = both(Cancelling().eval(), pixels, "torch", torch.bfloat16)
    assert (found - expected).norm() < 0.1 * expected.norm()


def test_an_engine_that_answers_something_else_is_refused(network, pixels, monkeypatch):
    def wrong(module, taps, dtype):
        fold_and_pool(module, taps, dtype)
        for value in module.buffers():
            value.mul_(1.5 if value.ndim == 4 else 1)

    monkeypatch.setattr("sklearn_mm.nn.engines._engines.fold_and_pool", wrong)
    with pytest.raises(EngineError, match="answers other activations than the network, by .* of the largest"):
        both(network, pixels, "torch")
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(EngineError, match="than the network, by .* of their norm"),
    ):
        both(network, pixels, "torch", torch.bfloat16)


def test_openvino_is_compared_in_float32_before_it_computes_in_half_precision(network, pixels, monkeypatch):
    pytest.importorskip("openvino")

    def wrong_by_little(module, taps, dtype):
        fold_and_pool(module, taps, dtype)
        for value in module.buffers():
            value.mul_(1.01 if value.ndim == 4 else 1)

    monkeypatch.setattr("sklearn_mm.nn.engines._engines.fold_and_pool", wrong_by_little)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(EngineError, match="than the network, by .* of the largest"),
    ):
        both(network, pixels, "openvino", torch.bfloat16)


def test_the_network_of_the_reader_is_left_alone(network, pixels):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    both(network, pixels, "torch")
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


class Moody(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, pixels):
        maps = self.first(pixels)
        return self.second(maps if float(maps.mean()) > 0 else -maps)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_network_that_looks_at_its_numbers_is_refused(pixels, engine):
    with pytest.raises(EngineError, match=f"engine='{engine}' cannot run this network: torch.export"):
        both(Moody().eval(), pixels, engine)


def test_auto_takes_an_engine_where_it_is_worth_its_start():
    assert chosen_engine("auto", CPU, torch.float32, 10) is None
    assert chosen_engine("auto", CPU, torch.float32, 1500) == "torch"
    has_openvino = find_spec("openvino") is not None
    assert chosen_engine("auto", CPU, torch.float32, 10_000) == ("openvino" if has_openvino else "torch")
    # autocast rounds elsewhere: activations would differ by more than rounding in float32
    assert chosen_engine("auto", CPU, torch.bfloat16, 10_000) is None
    assert chosen_engine("auto", torch.device("cuda"), torch.float32, 10_000) is None


def test_in_bfloat16_auto_is_settled_once():
    assert settled_engine("auto", CPU, torch.bfloat16, 499) == "auto"
    assert settled_engine("auto", CPU, torch.bfloat16, 500) == "torch"
    assert settled_engine("openvino", CPU, torch.bfloat16, 500) == "openvino"
    assert settled_engine("auto", CPU, torch.float32, 10_000) == "auto"
    assert settled_engine("auto", CPU, torch.float16, 10_000) == "auto"
    assert settled_engine("auto", torch.device("cuda"), torch.bfloat16, 10_000) == "auto"


def test_a_cache_tells_engines_apart_where_they_round_in_half_precision():
    assert {engine_identity(engine, CPU, torch.float32) for engine in ENGINES} == {""}
    assert engine_identity("auto", CPU, torch.bfloat16) == ""
    assert engine_identity("torch", CPU, torch.bfloat16) == "torch"
    assert engine_identity("torch", torch.device("cuda"), torch.bfloat16) == ""


def test_openvino_is_for_the_cpu_and_not_for_float16():
    check_engine("openvino", CPU, "auto")
    with pytest.raises(ValueError, match="runs on the CPU, got device 'cuda'"):
        check_engine("openvino", torch.device("cuda"), "auto")
    check_engine("openvino", CPU, "bfloat16")
    with pytest.raises(ValueError, match="does not compute in float16; use precision='bfloat16'"):
        check_engine("openvino", CPU, "float16")


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("sklearn_mm.nn.engines._engines.find_spec", lambda name: None)
    assert chosen_engine("auto", CPU, torch.float32, 10_000) == "torch"
    with pytest.raises(ImportError, match="pip install 'sklearn-mm\\[openvino\\]'"):
        check_engine("openvino", CPU, "auto")


@pytest.mark.parametrize(("kernel", "height", "width"), [(3, 7, 9), (5, 7, 8), (5, 5, 5)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_an_average_behind_a_convolution_follows_from_the_sums_of_borders(kernel, height, width, groups):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 6, height, width, generator=generator)
    weight = torch.randn(6, 6 // groups, kernel, kernel, generator=generator)
    bias = torch.randn(6, generator=generator)
    expected = nn.functional.conv2d(maps, weight, bias, padding=kernel // 2, groups=groups).mean((2, 3))
    sums, border = maps.sum((2, 3)), kernel // 2
    if groups == 6:
        weights = _openvino_means.weights_of_borders(weight, height, width)
        found = _openvino_means.mean_by_borders(maps, sums, border, *weights, bias)
    else:
        ones = [torch.ones(6, 1, *sides) for sides in ((1, width), (height, 1), (1, 1))]
        parts = _openvino_means.border_sums(maps, sums, border, *ones)
        by_border = _openvino_means.weight_by_border(weight, height, width)
        found = _openvino_means.mean_of_border_sums(parts, by_border, bias, groups, border)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("sides", "window"),
    [((112, 112), (7, 7)), ((14, 14), (2, 14)), ((7, 7), (1, 7)), ((149, 149), (1, 149)), ((2, 2), (1, 1))],
)
def test_windows_fill_a_map_and_leave_sums_to_be_added(sides, window):
    assert _openvino_means.window(*sides) == window
