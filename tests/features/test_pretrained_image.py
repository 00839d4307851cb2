"""Pretrained image models as encoders: alone, and with the text side of the same model in a ranker."""

import json
import pickle
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

from sklearn_mm.exceptions import ImageReadError, ImageReadWarning, WeightsError
from sklearn_mm.features import PretrainedImageEncoder, PretrainedTextEncoder, TextNGramEncoder
from sklearn_mm.persistence import load, save
from sklearn_mm.retrieval import JointEmbeddingRanker
from tests import tiny_dual_models

ROUNDING = 1e-5
LEARNING = ["none", "lora", "all"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    root = tmp_path_factory.mktemp("models")
    return {
        "clip": tiny_dual_models.write_clip(root / "clip"),
        "siglip": tiny_dual_models.write_siglip(root / "siglip"),
        "dinov2": tiny_dual_models.write_vit(root / "dinov2"),
    }


@pytest.fixture(scope="module")
def data(shapes):
    """Twenty-four pictures of 32 pixels, with captions short enough for a model of 20 letters."""
    captions = [[" ".join(text.split()[1:3])[:16] for text in own[:1]] for own in shapes.captions[:24]]
    return shapes.images[:24], captions


def _both(folder, **settings):
    fixed = {"precision": "float32", "device": "cpu", **settings}
    return PretrainedTextEncoder(folder, **fixed), PretrainedImageEncoder(folder, **fixed)


def _ranker(folder, *, learning="none", **settings):
    texts, images = _both(folder, trainable=learning)
    fixed = {"heads": "residual", "max_epochs": 0, "random_state": 0, "precision": "float32", "device": "cpu"}
    return JointEmbeddingRanker(texts, images, **{**fixed, **settings})


def _reference(folder, images, texts):
    """Return unit vectors of both sides as transformers gives them, and the scores of its loss."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    pictures = [Image.fromarray(picture) for picture in images]
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt")
    length = model.config.text_config.max_position_embeddings
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    if model.config.model_type == "siglip":
        tokens = {"input_ids": tokens["input_ids"]}
    with torch.inference_mode():
        out = model(**pixels, **tokens)
    return out.image_embeds.numpy(), out.text_embeds.numpy(), out.logits_per_image


def test_vectors_are_those_of_the_library(models, data):
    images, captions = data
    texts = [own[0] for own in captions]
    for kind in ("clip", "siglip"):
        text_encoder, image_encoder = _both(models[kind])
        found = [encoder.fit_transform(own) for encoder, own in ((image_encoder, images), (text_encoder, texts))]
        unit = [own / np.linalg.norm(own, axis=1, keepdims=True) for own in found]
        for ours, theirs in zip(unit, _reference(models[kind], images, texts)[:2], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=ROUNDING)
        assert image_encoder.logit_scale_ == text_encoder.logit_scale_ > 1
        assert image_encoder.get_feature_names_out()[0] == "pretrainedimageencoder0"


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("learning", LEARNING)
def test_search_works_before_any_training(models, data, kind, learning):
    images, captions = data
    texts = [own[0] for own in captions]
    ranker = _ranker(models[kind], learning=learning, hubness=None).fit(images, captions)
    image, text, _ = _reference(models[kind], images, texts)
    np.testing.assert_allclose(ranker.transform(images), image, atol=ROUNDING)
    np.testing.assert_allclose(ranker.transform_text(texts), text, atol=ROUNDING)
    scores, found = ranker.search_images(texts[:3], k=2)
    np.testing.assert_allclose(scores, -np.sort(-(text[:3] @ image.T), axis=1)[:, :2], atol=ROUNDING)
    assert found.shape == (3, 2)


@pytest.mark.parametrize("learning", LEARNING)
def test_the_first_loss_is_that_of_the_model(models, data, learning):
    images, captions = data
    different = {own[0]: row for row, own in enumerate(captions)}
    rows = np.array(sorted(different.values()))
    texts = [captions[row][0] for row in rows]
    still = {"max_epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "batch_size": 64}
    ranker = _ranker(models["clip"], learning=learning, **still).fit(images[rows], texts)
    logits = _reference(models["clip"], images[rows], texts)[2]
    truth = torch.arange(len(rows))
    cross_entropy = torch.nn.functional.cross_entropy
    expected = float(cross_entropy(logits, truth) + cross_entropy(logits.T, truth))
    assert ranker.history_[0]["train_loss"] == pytest.approx(expected, rel=1e-4)


def test_the_first_sigmoid_loss_is_that_of_the_model(models, data):
    images, captions = data
    rows = np.array(sorted({own[0]: row for row, own in enumerate(captions)}.values()))
    texts = [captions[row][0] for row in rows]
    still = {"max_epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "batch_size": 64}
    ranker = _ranker(models["siglip"], loss="sigmoid", **still).fit(images[rows], texts)
    logits = _reference(models["siglip"], images[rows], texts)[2]
    signs = 2 * torch.eye(len(rows)) - 1
    expected = float(-torch.nn.functional.logsigmoid(signs * logits).sum() / len(rows))
    assert ranker.history_[0]["train_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("learning", ["lora", "all"])
def test_training_moves_both_towers_and_goes_back_by_the_share(models, data, learning):
    images, captions = data
    fast = {"max_epochs": 3, "learning_rate": 2e-3, "batch_size": 8, "lr_schedule": "constant", "weight_decay": 0.0}
    texts = [own[0] for own in captions]
    ends = {share: _ranker(models["clip"], learning=learning, **fast, interpolate=share) for share in (0.0, 0.5, 1.0)}
    found = {share: ranker.fit(images, captions).transform(images) for share, ranker in ends.items()}
    zero_shot = _ranker(models["clip"]).fit(images, captions)
    np.testing.assert_allclose(found[0.0], zero_shot.transform(images), atol=ROUNDING)
    np.testing.assert_allclose(ends[0.0].transform_text(texts), zero_shot.transform_text(texts), atol=ROUNDING)
    moved = {share: np.abs(own - found[0.0]).mean() for share, own in found.items()}
    assert 0 < moved[0.5] < moved[1.0]
    assert np.abs(ends[1.0].transform_text(texts) - zero_shot.transform_text(texts)).mean() > 1e-3
    assert ends[1.0].history_[-1]["train_loss"] < ends[1.0].history_[0]["train_loss"]
    module = ends[1.0].image_encoder_.module_
    assert not any(part.training for part in module.modules())
    learnt = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert all(".lora_" in name for name in learnt) == (learning == "lora")


def test_an_image_model_alone_gets_heads_of_its_own(models, data):
    images, captions = data
    encoder = PretrainedImageEncoder(models["dinov2"], trainable="lora", device="cpu", precision="float32")
    ranker = JointEmbeddingRanker(
        TextNGramEncoder(12, word_dim=8), encoder, n_components=12, max_epochs=1, random_state=0
    ).fit(images, captions)
    assert ranker.transform(images).shape == (24, 12)
    frozen = JointEmbeddingRanker(
        TextNGramEncoder(12, word_dim=8), clone(encoder).set_params(trainable="none"), n_components=12, max_epochs=1
    ).fit(images, captions)
    assert frozen.image_head_.config["n_features"] == 24
    assert frozen.image_encoder_.logit_scale_ is None
    before = frozen.transform(images)
    frozen.set_params(warm_start=True, image_encoder__trainable="lora", learning_rate=1e-9).fit(images, captions)
    np.testing.assert_allclose(frozen.transform(images), before, atol=1e-4)  # the head stays, and the model learns
    assert any(parameter.requires_grad for parameter in frozen.image_encoder_.module_.parameters())


def test_whole_dual_encoders_learn_at_a_hundredth_of_the_rate(models, data):
    for kind, factor in (("clip", 0.01), ("dinov2", 0.02)):
        encoder = PretrainedImageEncoder(models[kind], trainable="all", device="cpu")
        assert encoder.initialize(data[0]).module_.learning_rate_factors == {"": factor}
        encoder.set_params(backbone_learning_rate=0.5).initialize(data[0])
        assert encoder.module_.learning_rate_factors == {"": 0.5}


def test_two_models_of_different_widths_are_refused(models, data):
    texts, _ = _both(models["clip"])
    _, images = _both(models["siglip"])
    with pytest.raises(ValueError, match="one dual encoder"):
        JointEmbeddingRanker(texts, images, heads="residual", max_epochs=0).fit(*data)


def test_the_snippets_of_the_guide_run(models, data):
    pictures, captions = list(data[0]), data[1]
    guide = (Path(__file__).parents[2] / "docs" / "dual_encoders.rst").read_text(encoding="utf-8")
    snippets = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", guide, flags=re.MULTILINE)
    names = {"pictures": pictures, "captions": captions, "few_pictures": pictures[:4]}
    names["their_labels"] = [["dog"], [], ["dog", "sea"], ["sea"]]
    for snippet in snippets:
        code = textwrap.dedent(snippet).replace("openai/clip-vit-base-patch32", str(models["clip"]))
        exec(compile(code, "dual_encoders.rst", "exec"), names)
    assert names["ranker"].interpolate == "auto"
    assert names["annotator"].predict(pictures).shape == (len(pictures),)


# Alone, saved, wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learning", LEARNING)
def test_an_encoder_is_opened_as_it_was_saved(models, data, tmp_path, learning):
    images, captions = data
    encoder = _both(models["clip"], trainable=learning, random_state=0, max_epochs=1, learning_rate=0.01)[1]
    encoder.fit(images, y=[own[0] for own in captions])
    assert (len(encoder.history_) == 0) == (learning == "none")
    expected = encoder.transform(images)
    save(encoder, tmp_path / "model")
    for again in (pickle.loads(pickle.dumps(encoder)), load(tmp_path / "model")):
        np.testing.assert_array_equal(again.transform(images), expected)
        assert again.logit_scale_ == encoder.logit_scale_
    size = sum(file.stat().st_size for file in (tmp_path / "model").iterdir())
    whole = (models["clip"] / "model.safetensors").stat().st_size
    assert size < whole / 4 or learning != "none"


@pytest.mark.slow
def test_a_saved_ranker_answers_alike_in_a_fresh_process(models, data, tmp_path, forked):
    images, captions = data
    ranker = _ranker(models["clip"], learning="lora", max_epochs=1).fit(images, captions)
    save(ranker, tmp_path / "model")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import numpy as np; from sklearn_mm.persistence import load; "
        f"m = load({str(tmp_path / 'model')!r}); x = np.load({str(tmp_path / 'images.npy')!r}); "
        f"np.save({str(tmp_path / 'out.npy')!r}, m.transform(x))"
    )
    status, output = forked(code, tmp_path)
    assert status == [0], output
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), ranker.transform(images), atol=ROUNDING)


def test_a_model_that_has_changed_since_is_noticed(data, tmp_path):
    pytest.importorskip("transformers")
    images, _ = data
    folder = tiny_dual_models.write_clip(tmp_path / "model")
    encoder = _both(folder)[1].fit(images)
    kept = pickle.dumps(encoder)
    tiny_dual_models.write_clip(folder, seed=1)
    with pytest.raises(WeightsError, match="not the model"):
        pickle.loads(kept).transform(images)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="set_params"):
        pickle.loads(kept).transform(images)


def test_pixels_come_from_the_model_and_not_from_imagenet(data, tmp_path):
    pytest.importorskip("transformers")
    images, _ = data
    folder = tiny_dual_models.write_clip(tmp_path / "model")
    before = _both(folder)[1].fit_transform(images)
    own = json.loads((folder / "processor_config.json").read_text())
    own["image_processor"].update(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    (folder / "processor_config.json").write_text(json.dumps(own))
    assert np.abs(_both(folder)[1].fit_transform(images) - before).max() > 0.01


def test_pictures_that_cannot_be_read_go_the_way_that_was_chosen(models, data):
    images = [*data[0][:3], b"no picture", *data[0][3:5]]
    encoder = _both(models["clip"])[1]
    with pytest.raises(ImageReadError, match="row 3"):
        encoder.fit(images)
    encoder.set_params(on_error="nan")
    with pytest.warns(ImageReadWarning, match="1 of 6"):
        encoder.fit(images)
    with pytest.warns(ImageReadWarning):
        out = encoder.transform(images)
    assert np.flatnonzero(np.isnan(out).any(axis=1)).tolist() == [3]
    np.testing.assert_allclose(np.delete(out, 3, axis=0), encoder.transform(data[0][:5]), atol=ROUNDING)


def test_tables_and_unknown_settings_are_refused(models, data):
    with pytest.raises(ValueError, match="expected pictures"):
        _both(models["clip"])[1].fit(np.zeros((3, 4)))
    for settings in ({"trainable": "some"}, {"pooling": "max"}, {"lora_rank": 0}, {"crop_scale": (2.0, 1.0)}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            _both(models["clip"])[1].set_params(**settings).fit(data[0])


def test_an_encoder_learns_alone_from_crops_that_differ(models, data):
    images, captions = data
    encoder = PretrainedImageEncoder(
        models["dinov2"],
        trainable="all",
        crop_scale=(0.5, 1.0),
        mirror=True,
        random_state=0,
        device="cpu",
        max_epochs=1,
    )
    y = [own[0] for own in captions]
    first, second = (clone(encoder).fit(images, y).transform(images) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(clone(encoder).set_params(trainable="none").fit_transform(images) - first).max() > 1e-4
