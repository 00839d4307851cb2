import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklearn_mm.index import ExactIndex
from sklearn_mm.metrics import RetrievalScorer, retrieval_report
from sklearn_mm.persistence import load, save
from sklearn_mm.retrieval import JointEmbeddingRanker, NearestNeighborNormalization
from sklearn_mm.retrieval._gallery import Gallery
from tests import reference

SMALL = {"n_components": 12, "batch_size": 16, "max_epochs": 2, "random_state": 0, "device": "cpu"}


def ranker(**parameters):
    return JointEmbeddingRanker(**{**SMALL, "precision": "float32", **parameters})


@pytest.fixture
def embedded():
    """Images and texts of a space with hubs, not of unit length."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(70, 6)) + 1, rng.normal(size=(90, 6)) + 1


@pytest.fixture(scope="module")
def fitted(data):
    return ranker().fit(*data)


# What is taken off -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_neighbors", [1, 5, 1000])
def test_offsets_are_those_of_slow_loops(embedded, n_neighbors):
    images, texts = embedded
    hubness = NearestNeighborNormalization(0.5, n_neighbors=n_neighbors).fit(images[:40], texts[:50])
    for offsets, items, bank in (
        (hubness.image_offsets(images[40:]), images[40:], texts[:50]),
        (hubness.text_offsets(texts[50:]), texts[50:], images[:40]),
    ):
        np.testing.assert_allclose(offsets, reference.hub_offsets(items, bank, 0.5, n_neighbors), rtol=1e-6)
        assert offsets.dtype == np.float32


def test_equal_items_have_equal_offsets_wherever_they_stand(embedded):
    images, texts = embedded
    hubness = NearestNeighborNormalization().fit(images, texts)
    many = np.random.default_rng(1).normal(size=(700, 6))
    many[[0, 255, 256, 699]] = images[3]
    offsets = hubness.image_offsets(many)
    assert len(set(offsets[[0, 255, 256, 699]].tolist())) == 1
    assert offsets[699] == hubness.image_offsets(images[3:4])[0]


def test_banks_are_bounded_and_drawn_by_the_seed(embedded):
    images, texts = embedded
    hubness = NearestNeighborNormalization(bank_size=20, random_state=0)
    banks = [clone(hubness).set_params(random_state=seed).fit(images, texts).image_bank_ for seed in (0, 0, 1)]
    assert banks[0].shape == (20, 6)
    np.testing.assert_array_equal(banks[0], banks[1])
    assert not np.array_equal(banks[0], banks[2])
    np.testing.assert_allclose(np.linalg.norm(banks[0], axis=1), 1, rtol=1e-6)


def test_a_bank_of_one_and_a_vector_of_zeros_are_defined(embedded):
    images, texts = embedded
    hubness = NearestNeighborNormalization(strength=1.0).fit(images[:1], texts[:1])
    expected = [reference.cosine(image, texts[0]) for image in images]
    np.testing.assert_allclose(hubness.image_offsets(images), expected, rtol=1e-5)
    assert hubness.image_offsets(np.zeros((1, 6)))[0] == 0


def test_banks_and_items_of_other_widths_are_refused(embedded):
    images, texts = embedded
    with pytest.raises(ValueError, match="images of 6 components and texts of 5"):
        NearestNeighborNormalization().fit(images, texts[:, :5])
    with pytest.raises(ValueError, match="expected items of 6 components, as in the bank, got 5"):
        NearestNeighborNormalization().fit(images, texts).image_offsets(images[:, :5])


@pytest.mark.parametrize("seed", range(3))
def test_what_is_near_every_query_is_found_less_often(seed):
    rng = np.random.default_rng(seed)
    meaning, hub = rng.normal(size=(400, 16)), rng.normal(size=16)
    images = meaning + 0.5 * rng.normal(size=(400, 16)) + 2 * hub * rng.exponential(size=(400, 1))
    texts = meaning + 0.5 * rng.normal(size=(400, 16)) + 2 * hub
    hubness = NearestNeighborNormalization().fit(images[:200], texts[:200])
    images, texts, owner = images[200:], texts[200:], np.arange(200)
    plain = retrieval_report(images, texts, owner)
    corrected = retrieval_report(images, texts, owner, image_offset=hubness.image_offsets(images))
    assert corrected["t2i_hit@1"] > plain["t2i_hit@1"] + 0.1


# In a ranker -------------------------------------------------------------------------------------------------------


def test_searches_take_off_what_the_banks_say_both_ways(fitted, data):
    X, captions = data
    texts = [own[0] for own in captions[:20]]
    fitted = pickle.loads(pickle.dumps(fitted)).set_gallery(images=X[10:60], texts=texts)
    image, text = fitted.transform(X[10:60]), fitted.transform_text(texts)
    cosines = image @ text.T
    for (scores, indices), table in (
        (fitted.search_images(texts, 7), cosines.T - fitted.hubness_.image_offsets(image)),
        (fitted.search_texts(X[10:60], 7), cosines - fitted.hubness_.text_offsets(text)),
    ):
        np.testing.assert_allclose(scores, -np.sort(-table, axis=1)[:, :7], atol=1e-6)
        np.testing.assert_allclose(np.take_along_axis(table, indices, axis=1), scores, atol=1e-6)
    table = cosines - fitted.hubness_.text_offsets(text)
    np.testing.assert_allclose(fitted.decision_function(X[10:60]), table, atol=1e-6)
    assert fitted.predict(X[10:60]).tolist() == [texts[i] for i in table.argmax(axis=1)]


def test_a_gallery_of_one_is_found(fitted, data):
    X, _ = data
    fitted = pickle.loads(pickle.dumps(fitted)).set_gallery(images=X[:1], texts=["a red dot"])
    assert fitted.search_images(["a red dot", "a blue box"])[1].tolist() == [[0], [0]]
    assert set(fitted.predict(X[:3])) == {"a red dot"}


def test_scores_are_the_report_with_what_is_taken_off(fitted, data):
    X, captions = data
    image, texts = fitted.transform(X[:30]), [text for own in captions[:30] for text in own]
    text = fitted.transform_text(texts)
    expected = retrieval_report(
        image,
        text,
        np.repeat(np.arange(30), 2),
        wording=texts,
        image_offset=fitted.hubness_.image_offsets(image),
        text_offset=fitted.hubness_.text_offsets(text),
    )
    assert RetrievalScorer()(fitted, X[:30], captions[:30]) == pytest.approx(expected)
    plain = pickle.loads(pickle.dumps(fitted))
    plain.hubness_ = None
    assert RetrievalScorer()(plain, X[:30], captions[:30])["i2t_mean_rank"] != expected["i2t_mean_rank"]


def test_nothing_is_taken_off_without_a_correction(data):
    X, captions = data
    plain = ranker(hubness=None).fit(X, captions)
    assert plain.hubness_ is None
    cosines = plain.transform(X[:5]) @ plain.transform_text(plain.gallery_texts_.tolist()).T
    np.testing.assert_allclose(plain.decision_function(X[:5]), cosines, atol=1e-6)


def test_training_is_the_same_with_and_without(fitted, data):
    X, captions = data
    np.testing.assert_array_equal(ranker(hubness=None).fit(X, captions).transform(X), fitted.transform(X))


def test_banks_hold_what_was_trained_on_alone(data):
    X, captions = data
    weight = np.ones(len(X))
    weight[:20] = 0
    fitted = ranker().fit(X, captions, sample_weight=weight)
    kept = fitted.transform(X[20:])
    np.testing.assert_allclose(np.sort(fitted.hubness_.image_bank_, axis=0), np.sort(kept, axis=0), atol=1e-6)
    held_out = ranker(early_stopping=True, validation_fraction=0.25).fit(X, captions)
    assert len(held_out.hubness_.image_bank_) == 72
    assert len(held_out.hubness_.text_bank_) == 144
    partial = ranker().partial_fit(X, captions).partial_fit(X[:30], captions[:30])
    np.testing.assert_allclose(
        np.sort(partial.hubness_.image_bank_, axis=0), np.sort(partial.transform(X[:30]), axis=0), atol=1e-6
    )


def test_banks_of_texts_are_embedded_captions(data):
    X, captions = data
    fitted = ranker(hubness=NearestNeighborNormalization(bank_size=10)).fit(X, captions)
    every = fitted.transform_text([text for own in captions for text in own])
    assert fitted.hubness_.text_bank_.shape == (10, 12)
    assert ((fitted.hubness_.text_bank_ @ every.T).max(axis=1) > 1 - 1e-5).all()


def test_order_has_no_correction_by_itself_and_refuses_one(data):
    X, captions = data
    assert ranker(similarity="order").fit(X, captions).hubness_ is None
    with pytest.raises(ValueError, match="hubness='nnn' corrects cosines, got similarity='order'"):
        ranker(similarity="order", hubness="nnn").fit(X, captions)


def test_parameters_are_checked_before_training(data):
    X, captions = data
    with pytest.raises(ValueError, match="'n_neighbors' parameter of NearestNeighborNormalization"):
        ranker(hubness=NearestNeighborNormalization(n_neighbors=0)).fit(X, captions)
    with pytest.raises(ValueError, match="'hubness' parameter of JointEmbeddingRanker"):
        ranker(hubness="qb").fit(X, captions)
    with pytest.raises(ValueError, match="index must hold no items, which come with the galleries, got 3"):
        ranker(index=ExactIndex().add(np.eye(3))).fit(X, captions)


def test_the_strength_is_searched_by_its_nested_name(data):
    X, captions = data
    search = GridSearchCV(
        ranker(hubness=NearestNeighborNormalization()),
        {"hubness__strength": [0.0, 0.75]},
        scoring=RetrievalScorer(k=1),
        refit="rsum",
        cv=2,
    ).fit(X, captions)
    plain, corrected = search.cv_results_["mean_test_i2t_mean_rank"]
    assert plain != corrected


def test_corrected_searches_are_the_same_in_a_pickle_and_in_a_folder(fitted, data, tmp_path):
    X, _ = data
    expected = fitted.search_images(["a red"], 9)
    save(fitted, tmp_path / "model")
    for again in (pickle.loads(pickle.dumps(fitted)), load(tmp_path / "model")):
        for ours, theirs in zip(again.search_images(["a red"], 9), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        again.set_gallery(images=X)
        np.testing.assert_array_equal(again.search_images(["a red"], 9)[1], expected[1])


def test_models_of_before_are_searched_by_plain_scores(data):
    X, captions = data
    old = ranker(hubness=None).fit(X, captions)
    state = old.__getstate__()
    for name in ("hubness", "hubness_", "index"):
        del state[name]
    opened = JointEmbeddingRanker.__new__(JointEmbeddingRanker)
    opened.__setstate__(state)
    np.testing.assert_array_equal(opened.decision_function(X), old.decision_function(X))
    opened.set_gallery(images=X[:9])
    assert opened.search_images(["a red dot"])[1].shape == (1, 9)


# Indexes -----------------------------------------------------------------------------------------------------------


class ForgetfulIndex(ExactIndex):
    """Finds nothing for every other query, as an approximate index may."""

    def search(self, Q, k):
        scores, indices = super().search(Q, k)
        scores[::2], indices[::2] = -np.inf, -1
        return scores, indices


def test_what_an_approximate_index_misses_is_no_item_but_every_image_has_a_caption(data):
    X, captions = data
    exact, forgetful = ranker().fit(X, captions), ranker(index=ForgetfulIndex()).fit(X, captions)
    assert forgetful.predict(X[:9]).tolist() == exact.predict(X[:9]).tolist()
    assert forgetful.search_texts(X[:2], 3)[1][0].tolist() == [-1, -1, -1]
    gallery = Gallery(exact.transform(X[:9]), "cosine", rows=np.arange(9) + 5, index=ForgetfulIndex())
    assert gallery.search(exact.transform(X[:2]), 2, query_is_image=False)[1][0].tolist() == [-1, -1]


def test_an_index_sees_plain_inner_products(data):
    pytest.importorskip("faiss")
    from sklearn_mm.index import FaissIndex

    X, captions = data
    exact, faiss = ranker().fit(X, captions), ranker(index=FaissIndex("Flat")).fit(X, captions)
    for ours, theirs in zip(faiss.search_images(["a blue"], 9), exact.search_images(["a blue"], 9), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    again = pickle.loads(pickle.dumps(faiss))
    np.testing.assert_array_equal(again.search_texts(X, 3)[1], faiss.search_texts(X, 3)[1])
    assert len(clone(faiss).index) == 0


def test_a_copy_of_a_ranker_that_was_not_fitted_has_learnt_nothing():
    assert copy.deepcopy(JointEmbeddingRanker()).__dict__.keys() == JointEmbeddingRanker().__dict__.keys()
