"""Containers in which people's pictures come, through every estimator that takes pictures."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from torchvision.datasets import ImageFolder

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import FullNetworkEmbedding, ImageCNNEncoder, find_unreadable
from sklearn_mm.retrieval import JointEmbeddingRanker

N_IMAGES, SIDE = 8, 32
SHAPES = make_captioned_shapes(N_IMAGES, image_size=SIDE, random_state=0)
CAPTIONS = [list(own) for own in SHAPES.captions]
LABELS = [own[0].split() for own in SHAPES.captions]
FROZEN = FullNetworkEmbedding("squeezenet1_1", weights=None, image_size=SIDE, layers=1, discretize=False)
TRAINED = ImageCNNEncoder("squeezenet1_1", weights=None, image_size=SIDE, max_epochs=1, batch_size=8, random_state=0)
SHORT = {"max_epochs": 1, "random_state": 0}
MODELS = {
    "embedding": (FROZEN, lambda model, X: model.fit(X).transform(X)),
    "encoder": (TRAINED, lambda model, X: model.fit(X, np.arange(N_IMAGES) // 2).transform(X)),
    "ranker": (
        JointEmbeddingRanker(image_encoder=FROZEN, n_components=4, **SHORT),
        lambda model, X: model.fit(X, CAPTIONS).transform(X),
    ),
    "annotator": (
        MultiLabelAnnotator(FROZEN, n_folds=None, hidden_layer_sizes=(4,), **SHORT),
        lambda model, X: model.fit(X, LABELS).predict_proba(X),
    ),
}


@pytest.fixture(scope="module")
def expected():
    return {name: run(clone(model), list(SHAPES.images)) for name, (model, run) in MODELS.items()}


@pytest.fixture
def containers(tmp_path):
    """The same pictures as data sets, cells, open files and pairs."""
    for row, pixels in enumerate(SHAPES.images):
        path = tmp_path / f"class{row // 4}" / f"{row}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    folder = ImageFolder(tmp_path)
    contents = [Path(path).read_bytes() for path, _ in folder.samples]
    return {
        "ImageFolder": folder,
        "a part of one": torch.utils.data.Subset(folder, range(N_IMAGES)),
        "its samples": folder.samples,
        "cells": pd.DataFrame({"image": [{"bytes": content, "path": None} for content in contents]}),
        "open files": [io.BytesIO(content) for content in contents],
    }


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.LabelWarning")
def test_pictures_are_the_same_in_every_container(kind, containers, expected):
    model, run = MODELS[kind]
    for name, held in containers.items():
        np.testing.assert_array_equal(run(clone(model), held), expected[kind], err_msg=name)
        assert find_unreadable(held) == []


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: (path for path in ["a.png"]), "a generator, which can be read once"),
        (lambda: {"a.png": "a dog"}, "a dict; pass its values"),
        (lambda: "a.png", "wrap it in a list"),
    ],
)
def test_what_is_no_sequence_of_pictures_is_refused_by_every_model(kind, make, message):
    model, run = MODELS[kind]
    with pytest.raises(TypeError, match=message):
        run(clone(model), make())


@pytest.mark.parametrize("kind", MODELS)
def test_messages_about_contents_in_the_place_of_paths_are_short(kind):
    model, run = MODELS[kind]
    with pytest.raises(ValueError, match="row 0 .*base64") as caught:
        run(clone(model), ["iVBORw0KGgo" * (100_000 + row) for row in range(N_IMAGES)])
    assert len(str(caught.value)) < 4000
