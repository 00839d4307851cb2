"""Labels by their names: prompts, own names, thresholds from a few examples, and what MultiLabelAnnotator does too."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

from sklearn_mm.annotation import MultiLabelAnnotator, ZeroShotAnnotator
from sklearn_mm.features import PretrainedImageEncoder, PretrainedTextEncoder
from sklearn_mm.persistence import load, save
from sklearn_mm.retrieval import JointEmbeddingRanker
from tests import tiny_dual_models

WORDS = ["bird", "cloud", "sea", "tree"]
ROUNDING = 1e-5


class WordSpace(TransformerMixin, BaseEstimator):
    """The text side of a space with an axis for each word, and one more that all sentences share."""

    def __init__(self, words=tuple(WORDS), logit_scale=None, logit_bias=None):
        self.words = words
        self.logit_scale = logit_scale
        self.logit_bias = logit_bias

    def fit(self, X, y=None):
        self.logit_scale_, self.logit_bias_ = self.logit_scale, self.logit_bias
        return self

    def transform(self, X):
        found = CountVectorizer(vocabulary=list(self.words)).transform(X).toarray()
        return np.column_stack([found, np.full(len(X), 0.3)]).astype(np.float32)


@pytest.fixture(scope="module")
def scenes():
    """400 images that lie between the axes of their labels, none to three of them."""
    rng = np.random.default_rng(0)
    truth = rng.random((400, 4)) < 0.35
    noise = rng.normal(0, 0.15, (400, 5))
    vectors = np.column_stack([truth, np.full(400, 0.8)]) + noise
    return vectors.astype(np.float32), truth.astype(int)


def _names(truth):
    return [np.array(WORDS)[row.astype(bool)].tolist() for row in truth]


def test_without_examples_each_image_gets_the_label_that_is_nearest(scenes):
    vectors, truth = scenes
    one = truth.sum(axis=1) == 1
    annotator = ZeroShotAnnotator(WordSpace(), labels=WORDS).fit(vectors)
    named = annotator.predict(vectors[one])
    assert named.shape == (one.sum(),)
    assert np.mean(named == np.array(WORDS)[truth[one].argmax(axis=1)]) > 0.95
    proba = annotator.predict_proba(vectors)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=ROUNDING)
    pairs = annotator.set_params(label_count=2).fit(vectors).predict(vectors[:3])
    assert [len(labels) for labels in pairs] == [2, 2, 2]


def test_a_few_examples_say_how_many_labels_an_image_gets(scenes):
    vectors, truth = scenes
    few, rest = slice(0, 20), slice(20, None)
    found = {}
    for way in ("threshold", "label-thresholds", "count", 1):
        annotator = ZeroShotAnnotator(WordSpace(), labels=WORDS, label_count=way)
        annotator.fit(vectors[few], _names(truth[few]))
        found[way] = annotator.score(vectors[rest], _names(truth[rest]))
    assert found["threshold"] > 0.9
    assert found["threshold"] > found["count"] > 0.5
    assert found["label-thresholds"] > 0.85
    # an annotator that learns the labels themselves has too little to learn from
    trained = MultiLabelAnnotator(random_state=0, hidden_layer_sizes=(), label_count="threshold", n_folds=None)
    trained.fit(vectors[few], _names(truth[few]))
    assert found["threshold"] > trained.score(vectors[rest], _names(truth[rest]))


def test_scores_probabilities_and_labels_agree(scenes):
    vectors, truth = scenes
    annotator = ZeroShotAnnotator(WordSpace()).fit(vectors[:50], truth[:50])
    np.testing.assert_array_equal(annotator.classes_, np.arange(4))
    annotator = ZeroShotAnnotator(WordSpace(), label_names=dict(enumerate(WORDS))).fit(vectors[:50], truth[:50])
    predicted, scores = annotator.predict(vectors), annotator.decision_function(vectors)
    np.testing.assert_array_equal(predicted, (scores > 0).astype(int))
    proba = annotator.predict_proba(vectors)
    assert proba[truth == 1].mean() > 0.7 > 0.3 > proba[truth == 0].mean()
    # what was learnt is near the share that is true
    assert proba.mean() == pytest.approx(truth.mean(), abs=0.08)
    for y in (truth, sparse.csr_array(truth)):
        own = clone(annotator).fit(vectors[:50], y[:50])
        assert sparse.issparse(own.predict(vectors[:5])) == sparse.issparse(y)


def test_one_label_a_row_makes_a_plain_classifier(scenes):
    vectors, truth = scenes
    one = truth.sum(axis=1) == 1
    y = np.array(WORDS)[truth[one].argmax(axis=1)]
    annotator = ZeroShotAnnotator(WordSpace())
    assert cross_val_score(annotator, vectors[one], y, cv=3).min() > 0.9
    two = np.isin(y, ["sea", "tree"])
    scores = annotator.fit(vectors[one][two], y[two]).decision_function(vectors[one][two])
    np.testing.assert_array_equal(scores > 0, annotator.predict(vectors[one][two]) == "tree")


def test_names_and_templates_make_the_sentences_and_their_vectors_are_averaged():
    annotator = ZeroShotAnnotator(
        WordSpace(),
        labels=["sea_bird", "wood"],
        label_names={"wood": ["tree", "a tree or a bird"]},
        templates=["{}", "a photo of a {}"],
    ).fit(np.eye(5))
    assert annotator.prompts_[0] == ["sea bird", "a photo of a sea bird"]
    assert annotator.prompts_[1] == ["tree", "a photo of a tree", "a tree or a bird", "a photo of a a tree or a bird"]
    each = WordSpace().fit([]).transform(annotator.prompts_[1])
    mean = (each / np.linalg.norm(each, axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(annotator.label_vectors_[1], mean / np.linalg.norm(mean), atol=ROUNDING)


def test_labels_without_an_example_may_be_given(scenes):
    vectors, truth = scenes
    without_sea = np.flatnonzero(truth[:, 2] == 0)[:40]
    annotator = ZeroShotAnnotator(WordSpace(), labels=WORDS).fit(vectors[without_sea], _names(truth[without_sea]))
    found = annotator.predict(vectors)
    has_sea = np.array(["sea" in labels for labels in found])
    assert np.mean(has_sea == truth[:, 2]) > 0.85


def test_a_sigmoid_models_own_numbers_are_the_probabilities():
    annotator = ZeroShotAnnotator(WordSpace(logit_scale=10.0, logit_bias=-4.0), labels=WORDS, label_count=2)
    annotator.fit(np.eye(5))
    cosines = np.eye(5)[:1] @ annotator.label_vectors_.T
    np.testing.assert_allclose(
        annotator.predict_proba(np.eye(5)[:1]), 1 / (1 + np.exp(4 - 10 * cosines)), atol=ROUNDING
    )


def test_unknown_entries_do_not_count(scenes):
    vectors, truth = scenes
    hidden = truth.astype(float)
    hidden[np.random.default_rng(1).random(truth.shape) < 0.3] = np.nan
    names = dict(enumerate(WORDS))
    annotator = ZeroShotAnnotator(WordSpace(), label_names=names, label_count="label-thresholds")
    found = [clone(annotator).fit(vectors[:200], y[:200]).score(vectors[200:], truth[200:]) for y in (truth, hidden)]
    assert found[1] > found[0] - 0.03


def test_weights_count_as_rows_would(scenes):
    vectors, truth = scenes
    X, y = vectors[:60], _names(truth[:60])
    weight = np.r_[np.zeros(20), np.ones(20), np.full(20, 2)]
    weighted = ZeroShotAnnotator(WordSpace(), labels=WORDS).fit(X, y, sample_weight=weight)
    order = np.r_[20:40, 40:60, 40:60]
    repeated = ZeroShotAnnotator(WordSpace(), labels=WORDS).fit(X[order], [y[row] for row in order])
    scores = [each.decision_function(vectors) for each in (weighted, repeated)]
    assert np.mean((scores[0] > 0) == (scores[1] > 0)) > 0.98


def test_grid_search_and_copies_work(scenes, tmp_path):
    vectors, truth = scenes
    search = GridSearchCV(
        ZeroShotAnnotator(WordSpace(), labels=WORDS), {"label_count": ["threshold", "count"]}, cv=KFold(2)
    ).fit(vectors[:80], np.array([set(own) for own in _names(truth[:80])], dtype=object))
    assert search.best_params_ == {"label_count": "threshold"}
    annotator = ZeroShotAnnotator(CountVectorizer(vocabulary=WORDS), labels=WORDS)
    annotator.fit(vectors[:50, :4], _names(truth[:50]))
    save(annotator, tmp_path / "model")
    for again in (pickle.loads(pickle.dumps(annotator)), load(tmp_path / "model")):
        np.testing.assert_array_equal(
            again.decision_function(vectors[:, :4]), annotator.decision_function(vectors[:, :4])
        )
        assert again.n_features_in_ == 4


@pytest.mark.parametrize(
    ("settings", "y", "error", "message"),
    [
        ({}, None, ValueError, "labels is None"),
        ({"templates": ["a photo"]}, None, ValueError, "in the place of the name"),
        ({"templates": "{}"}, None, ValueError, "templates"),
        ({"templates": []}, None, ValueError, "one template at least"),
        ({"labels": ["sea", "sea"]}, None, ValueError, "different labels"),
        ({"labels": WORDS, "label_names": {"sea": []}}, None, ValueError, "calls 'sea'"),
        ({"labels": WORDS, "label_count": 9}, None, ValueError, "more than the 4 labels"),
        ({"labels": WORDS, "label_count": "many"}, None, ValueError, "label_count"),
        ({"labels": WORDS, "text_encoder": None}, None, ValueError, "got neither"),
        ({"labels": WORDS, "text_encoder": WordSpace(WORDS[:2])}, None, ValueError, "have 5 components and"),
        ({"labels": WORDS[:2]}, [["sea"], [], []], ValueError, "row 0 has the label 'sea'"),
        ({"labels": WORDS}, [["sea"]], ValueError, "one entry of Y for each row"),
    ],
)
def test_what_is_wrong_is_named(settings, y, error, message):
    annotator = ZeroShotAnnotator(**{"text_encoder": WordSpace(), **settings})
    with pytest.raises(error, match=message):
        annotator.fit(np.eye(5)[:3], y)


def test_an_annotator_that_is_not_fitted_says_so():
    for ask in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(NotFittedError):
            getattr(ZeroShotAnnotator(WordSpace()), ask)(np.eye(5))


def test_both_sides_of_a_pretrained_model_label_pictures(shapes, tmp_path):
    pytest.importorskip("transformers")
    folder = str(tiny_dual_models.write_clip(tmp_path / "clip"))
    fixed = {"precision": "float32", "device": "cpu"}
    texts, images = PretrainedTextEncoder(folder, **fixed), PretrainedImageEncoder(folder, **fixed)
    pictures = shapes.images[:8]
    annotator = ZeroShotAnnotator(texts, images, labels=["red dot", "box"], templates=["a {}"]).fit(list(pictures))
    image, text = images.fit_transform(pictures), texts.fit_transform(["a red dot", "a box"])
    cosines = (image / np.linalg.norm(image, axis=1, keepdims=True)) @ (
        text / np.linalg.norm(text, axis=1, keepdims=True)
    ).T
    logits = images.logit_scale_ * cosines
    np.testing.assert_allclose(annotator.decision_function(pictures), logits[:, 1] - logits[:, 0], atol=1e-4)
    with pytest.raises(TypeError, match="trainable='none'"):
        clone(annotator).set_params(text_encoder__trainable="lora").fit(list(pictures))


def test_a_fitted_ranker_lends_both_of_its_sides(scenes, tmp_path):
    vectors, truth = scenes
    captions = [" and ".join(labels) or "nothing" for labels in _names(truth)]
    ranker = JointEmbeddingRanker(n_components=16, batch_size=16, learning_rate=5e-3, random_state=0, device="cpu")
    ranker.fit(vectors[:300], captions[:300])
    with pytest.raises(TypeError, match="FrozenEstimator"):
        ZeroShotAnnotator(image_encoder=ranker, labels=WORDS).fit(vectors)
    annotator = ZeroShotAnnotator(image_encoder=FrozenEstimator(ranker), labels=WORDS, templates=["{}"])
    annotator.fit(vectors[:50], _names(truth[:50]))
    proba = annotator.predict_proba(vectors[300:])
    assert annotator.score(vectors[300:], _names(truth[300:])) > 0.7
    assert proba[truth[300:] == 1].mean() > proba[truth[300:] == 0].mean() + 0.3
    assert annotator._scale == pytest.approx(1 / 0.07)
    save(annotator, tmp_path / "model")
    np.testing.assert_array_equal(
        load(tmp_path / "model").decision_function(vectors[300:]), annotator.decision_function(vectors[300:])
    )
