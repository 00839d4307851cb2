"""Dual encoders and image models answer as their own libraries do, and each known way to a wrong number is closed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sklearn_mm.exceptions import WeightsError
from sklearn_mm.images import PictureReader
from sklearn_mm.nn.pixels import normalise, scale_and_shift
from sklearn_mm.nn.pretrained import add_lora, find_model, open_image_model, open_text_model, pad_tokens, rebuild
from sklearn_mm.nn.pretrained._dual import _timm_on_hub
from sklearn_mm.nn.pretrained._lora import LoraSettings
from sklearn_mm.registry import name_of
from tests import tiny_dual_models

ROUNDING = 1e-5
TEXTS = ["a red dot", "the blue box a dog", "two cats of the circle a photo of the red green blue square box a dot"]
KINDS = {
    "clip": tiny_dual_models.write_clip,
    "siglip": tiny_dual_models.write_siglip,
    "siglip2": lambda folder: tiny_dual_models.write_siglip(folder, generation=2),
    "open_clip": tiny_dual_models.write_open_clip,
    "open_clip custom": lambda folder: tiny_dual_models.write_open_clip(folder, custom_text=True),
    "open_clip siglip": lambda folder: tiny_dual_models.write_open_clip(folder, siglip=True),
    "dinov2": lambda folder: tiny_dual_models.write_vit(folder, kind="dinov2"),
    "vit": lambda folder: tiny_dual_models.write_vit(folder, kind="vit"),
    "convnext": lambda folder: tiny_dual_models.write_vit(folder, kind="convnext"),
    "timm": tiny_dual_models.write_timm,
}
OF_TRANSFORMERS = ["clip", "siglip", "siglip2"]
OF_OPEN_CLIP = ["open_clip", "open_clip custom", "open_clip siglip"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a function from a kind to the folder of such a model, written when it is asked for."""
    pytest.importorskip("transformers")
    pytest.importorskip("open_clip")
    root, made = tmp_path_factory.mktemp("models"), {}

    def folder_of(kind):
        if kind not in made:
            made[kind] = KINDS[kind](root / kind.replace(" ", "_"))
        return made[kind]

    return folder_of


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 255, (9, 7, 3), dtype=np.uint8) for _ in range(3)]
    sides = [(57, 40), (32, 32), (51, 90)]  # width, height; a square of the model's own size among them
    return [Image.fromarray(own).resize(side) for own, side in zip(small, sides, strict=True)]


def _crops(pixels, pictures):
    reader = PictureReader(
        pixels.image_size,
        pixels.resize_size,
        pixels.interpolation,
        resize_mode=pixels.resize_mode,
        rounds_down=pixels.rounds_down,
        keeps_squares=False,
    )
    return torch.from_numpy(np.concatenate([reader.read(picture) for picture in pictures]))


def _pixels_of(opened, crops):
    return normalise(crops, *scale_and_shift(opened.module.mean, opened.module.std, crops.shape[2]))


def _batch(tokenizer, texts):
    ids, _ = tokenizer.encode(texts)
    return pad_tokens(np.array([token for own in ids for token in own]), np.array(list(map(len, ids))), tokenizer)


def _unit(rows):
    return torch.nn.functional.normalize(rows, dim=1)


def _embedded(folder, pictures, texts):
    """Return the models and unit vectors of pictures and texts as this library gives them."""
    image, text = open_image_model(folder), open_text_model(folder)
    with torch.inference_mode():
        images = _unit(image.module(_crops(image.pixels, pictures)))
        return image, text, images, _unit(text.module(_batch(text.tokenizer, texts)))


@pytest.mark.parametrize("kind", OF_TRANSFORMERS)
def test_models_of_transformers_answer_as_there(folders, pictures, kind):
    import transformers

    folder = folders(kind)
    image, text, images, texts = _embedded(folder, pictures, TEXTS)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt")["pixel_values"]
    length = model.config.text_config.max_position_embeddings
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    given = dict(tokens) if kind == "clip" else {"input_ids": tokens["input_ids"]}
    with torch.inference_mode():
        theirs = model(pixel_values=pixels, **given)
    torch.testing.assert_close(images, theirs.image_embeds, atol=ROUNDING, rtol=0)
    torch.testing.assert_close(texts, theirs.text_embeds, atol=ROUNDING, rtol=0)
    logits = images @ texts.T * image.logit_scale + (image.logit_bias or 0.0)
    torch.testing.assert_close(logits, theirs.logits_per_image, atol=1e-4, rtol=0)
    assert (text.logit_scale, text.logit_bias) == (image.logit_scale, image.logit_bias)
    assert (image.logit_bias is None) == (kind == "clip")
    assert images.shape[1] == image.module.width == text.module.width
    assert texts[0] @ texts[1] < 0.999  # or any text would do


@pytest.mark.parametrize("kind", OF_OPEN_CLIP)
def test_models_of_open_clip_answer_as_there(folders, pictures, kind):
    import open_clip

    folder = folders(kind)
    image, _, images, texts = _embedded(folder, pictures, TEXTS)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    crops = _crops(image.pixels, pictures)
    ours = _pixels_of(image, crops)
    with torch.inference_mode():
        theirs = torch.stack([preprocess(picture) for picture in pictures])
        torch.testing.assert_close(images, _unit(model.encode_image(ours)), atol=ROUNDING, rtol=0)
        torch.testing.assert_close(texts, _unit(model.encode_text(tokens)), atol=ROUNDING, rtol=0)
        # open_clip resizes by Pillow, which rounds between both directions: a few grey levels here and there
        assert (images * _unit(model.encode_image(theirs))).sum(dim=1).min() > 0.9999
    levels = (ours - theirs).abs() * image.module.std[:, None, None] * 255
    assert levels.max() <= 3.5
    assert levels.mean() < 0.5
    state = model.state_dict()
    assert image.logit_scale == pytest.approx(float(state["logit_scale"].exp()))
    assert image.logit_bias == (pytest.approx(float(state["logit_bias"])) if "logit_bias" in state else None)


@pytest.mark.parametrize("kind", ["dinov2", "vit", "convnext"])
def test_image_models_of_transformers_give_their_class_token_or_what_they_pool(folders, pictures, kind):
    import transformers

    folder = folders(kind)
    opened = open_image_model(folder)
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt")["pixel_values"]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    crops = _crops(opened.pixels, pictures)
    with torch.inference_mode():
        theirs = model(pixels)
        expected = theirs.pooler_output if kind == "convnext" else theirs.last_hidden_state[:, 0]
        torch.testing.assert_close(opened.module(crops), expected, atol=ROUNDING, rtol=0)
        if kind != "convnext":
            mean = open_image_model(folder, pooling="mean").module(crops)
            torch.testing.assert_close(mean, theirs.last_hidden_state[:, 1:].mean(1), atol=ROUNDING, rtol=0)
    assert opened.logit_scale is None
    assert opened.module.width == 24


def test_models_of_timm_answer_as_there(folders, pictures):
    import timm

    folder = folders("timm")
    opened = open_image_model(f"timm:{folder}")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    crops = _crops(opened.pixels, pictures)
    look = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    theirs = torch.stack([look(picture) for picture in pictures])
    ours = _pixels_of(opened, crops)
    with torch.inference_mode():
        torch.testing.assert_close(opened.module(crops), model(ours), atol=ROUNDING, rtol=0)
    assert ((ours - theirs).abs() * 255 * 0.5).max() <= 3.5
    assert opened.pixels.resize_size > opened.pixels.image_size


# Ways to a wrong number -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["siglip", "siglip2", "open_clip siglip"])
def test_sigmoid_models_read_texts_filled_up_to_the_full_length(folders, kind):
    opened = open_text_model(folders(kind))
    alone, among_others = (_batch(opened.tokenizer, texts).ids for texts in (TEXTS[:1], TEXTS))
    assert alone.shape[1] == among_others.shape[1] == opened.tokenizer.pad_to == opened.tokenizer.max_length
    opened.tokenizer.pad_to = None
    short = _batch(opened.tokenizer, TEXTS[:1])
    assert short.ids.shape[1] < alone.shape[1]
    with torch.inference_mode():
        right = opened.module(pad_tokens(short.ids[0].numpy(), np.array([short.ids.shape[1]]), _padded(opened)))
        assert _unit(right) @ _unit(opened.module(short)).T < 0.999  # which is why


def _padded(opened):
    opened.tokenizer.pad_to = opened.tokenizer.max_length
    return opened.tokenizer


def test_softmax_models_read_texts_alike_however_they_are_filled_up(folders):
    opened = open_text_model(folders("clip"))
    with torch.inference_mode():
        alone, among = (opened.module(_batch(opened.tokenizer, texts))[0] for texts in (TEXTS[:1], TEXTS))
    torch.testing.assert_close(alone, among, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("kind", ["siglip", "siglip2", "open_clip siglip"])
def test_sigmoid_models_read_lower_case_without_punctuation(folders, kind):
    tokenizer = open_text_model(folders(kind)).tokenizer
    plain, written, spaced = tokenizer.encode(["a red dot", "A Red, dot!", "  a  red\ndot. "])[0]
    assert plain == written == spaced
    tokenizer.clean, tokenizer.mends = "none", False
    assert type(tokenizer)(**vars_of(tokenizer)).encode(["A Red, dot!"])[0][0] != plain


def vars_of(tokenizer):
    return {name: value for name, value in vars(tokenizer).items() if not name.startswith("_")}


@pytest.mark.parametrize("kind", ["clip", "siglip", "open_clip"])
def test_a_text_that_is_cut_keeps_its_end_and_is_reported(folders, kind):
    tokenizer = open_text_model(folders(kind)).tokenizer
    (short, long), cut = tokenizer.encode(["a dot", "a red dot " * 40])
    assert cut == [1]
    assert len(long) == tokenizer.max_length
    assert long[-1] == short[-1]


@pytest.mark.parametrize("kind", ["clip", "open_clip"])
def test_networks_stay_in_evaluation_mode_while_they_learn(folders, pictures, kind):
    image, text = open_image_model(folders(kind)), open_text_model(folders(kind))
    crops, batch = _crops(image.pixels, pictures), _batch(text.tokenizer, TEXTS)
    for module, given in ((image.module, crops), (text.module, batch)):
        with torch.inference_mode():
            used = module(given)
        module.train()
        assert not any(part.training for part in module.modules())
        learning = module(given)
        assert learning.requires_grad
        torch.testing.assert_close(learning.detach(), used, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("kind", ["clip", "siglip", "open_clip", "dinov2", "timm"])
def test_adapters_change_nothing_at_first_and_learn(folders, pictures, kind):
    pytest.importorskip("peft")
    opened = open_image_model(folders(kind))
    crops = _crops(opened.pixels, pictures)
    with torch.inference_mode():
        before = opened.module(crops)
    add_lora(opened.module, LoraSettings(rank=2))
    learning = opened.module(crops)
    torch.testing.assert_close(learning.detach(), before, atol=ROUNDING, rtol=0)
    learning.square().sum().backward()
    grads = [p.grad for name, p in opened.module.named_parameters() if ".lora_B." in name]
    assert grads
    assert all(grad is not None for grad in grads)
    assert any(grad.abs().max() > 0 for grad in grads)


# Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["clip", "siglip", "open_clip", "timm", "dinov2"])
def test_a_model_is_built_again_from_what_it_says_of_itself(folders, pictures, kind):
    opened = open_image_model(folders(kind))
    state = {name: value.clone() for name, value in opened.module.state_dict().items()}
    again = rebuild(name_of(type(opened.module)), json.loads(json.dumps(opened.module.config)), state)
    crops = _crops(opened.pixels, pictures)
    with torch.inference_mode():
        torch.testing.assert_close(again(crops), opened.module(crops), rtol=0, atol=0)
    assert open_image_model(folders(kind)).identity == opened.identity


def test_code_in_a_folder_is_not_run(tmp_path):
    pytest.importorskip("transformers")
    folder, trace = tiny_dual_models.write_clip(tmp_path / "model"), tmp_path / "trace"
    (folder / "code.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Own: ...\n")
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    tokens["auto_map"] = {"AutoTokenizer": ["code.Own", "code.Own"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    open_text_model(folder)
    assert not trace.exists()
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "code.Own", "AutoModel": "code.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    for opens in (open_text_model, open_image_model):
        with pytest.raises(WeightsError, match="code of models is never run"):
            opens(folder)
    assert not trace.exists()


def test_nothing_is_downloaded_without_being_asked_for(monkeypatch):
    pytest.importorskip("transformers")
    import socket

    def refuse(*args):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for opens in (open_text_model, open_image_model):
        with pytest.raises(WeightsError, match="local_files_only=False to download"):
            opens("somebody/no-such-model")


def test_files_of_the_old_format_are_fetched_where_there_are_no_others(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def download(name, *, allow_patterns, **settings):
        asked.append((allow_patterns, settings["local_files_only"]))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert find_model("somebody/model", local_files_only=False) == tmp_path
    assert [local for _, local in asked] == [False, False]
    assert "pytorch_model*.bin" in asked[1][0]
    (tmp_path / "model.safetensors").touch()
    find_model("somebody/model", local_files_only=False)
    find_model("somebody/model")
    assert len(asked) == 4


def test_models_of_timm_are_found_on_the_hub_by_their_name_there():
    pytest.importorskip("timm")
    assert _timm_on_hub("vit_small_patch14_dinov2.lvd142m") == "timm/vit_small_patch14_dinov2.lvd142m"
    with pytest.raises(WeightsError, match="timm has no model"):
        _timm_on_hub("no_such_model")


@pytest.mark.parametrize(
    ("kind", "file", "message"),
    [
        ("clip", "model.safetensors", "no weights"),
        ("clip", "processor_config.json", "wants to see"),
        ("open_clip", "open_clip_model.safetensors", "no weights"),
    ],
)
def test_a_missing_file_is_named(tmp_path, kind, file, message):
    pytest.importorskip("open_clip")
    folder = KINDS[kind](tmp_path)
    (folder / file).unlink()
    with pytest.raises(WeightsError, match=message):
        open_image_model(folder)


def test_a_model_of_open_clip_with_parts_from_a_hub_is_refused(tmp_path):
    pytest.importorskip("open_clip")
    folder = tiny_dual_models.write_open_clip(tmp_path)
    own = json.loads((folder / "open_clip_config.json").read_text())
    own["model_cfg"]["text_cfg"] = {"hf_model_name": "somebody/texts", "hf_tokenizer_name": "somebody/texts"}
    (folder / "open_clip_config.json").write_text(json.dumps(own))
    with pytest.raises(WeightsError, match="models of a hub"):
        open_text_model(folder)


def test_texts_are_cut_earlier_if_asked_but_never_later(folders):
    short = open_text_model(folders("siglip"), max_length=5).tokenizer
    assert len(short.encode(["a red dot a red dot"])[0][0]) == 5
    assert short.pad_to == 12  # the place that is read stays where it was in training
    with pytest.raises(ValueError, match="12 tokens at most"):
        open_text_model(folders("siglip"), max_length=40)
