"""Images that fit holds out, of which galleries learn how many pictures a sentence deserves."""

import numpy as np
import pytest
from sklearn.base import clone

from sklearn_mm import persistence
from sklearn_mm.retrieval import CorrelationRanker, Gallery, JointEmbeddingRanker, RankerEnsemble

COLOURS, SHAPES = ("red", "green", "blue"), ("dot", "box")
TRAINED = JointEmbeddingRanker(n_components=16, batch_size=16, max_epochs=10, random_state=0, n_jobs=1)
SOLVED = CorrelationRanker(random_state=0, n_jobs=1)
RANKERS = [TRAINED, SOLVED, RankerEnsemble([("solved", SOLVED), ("trained", TRAINED)], random_state=0)]
BY_NAME = pytest.mark.parametrize("ranker", RANKERS, ids=lambda ranker: type(ranker).__name__)


def drawn(n_each, seed):
    captions = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES] * n_each
    noise = np.random.default_rng(seed).normal(0, 0.1, (6 * n_each, 6))
    return np.tile(np.eye(6), (n_each, 1)) + noise, captions


def found(model, query):
    gallery = Gallery(model).add(drawn(1, seed=1)[0], ids=range(6))
    return gallery.search(query, cutoff="calibrated", warn_unknown=False).ids


@pytest.mark.filterwarnings("ignore:.* no known word")
@BY_NAME
def test_a_gallery_knows_how_many_a_sentence_deserves(ranker):
    X, captions = drawn(20, seed=0)
    model = clone(ranker).set_params(calibration_fraction=0.2).fit(X, captions)
    assert 2 in found(model, "a green dot")
    assert len(found(model, "a green dot")) < 6
    assert found(model, "quarterly revenue") == []


@BY_NAME
def test_what_is_held_out_is_not_learnt_but_found(ranker):
    X, captions = drawn(20, seed=0)
    captions = [f"{caption} word{row}" for row, caption in enumerate(captions)]
    model = clone(ranker).set_params(calibration_fraction=0.2).fit(X, captions)
    assert model._cutoff.n_images == 24
    n_unknown = len(model.unknown_words([f"word{row}" for row in range(120)]))
    assert n_unknown == 24
    assert set(model.search_images(["a green dot"], k=120)[1][0]) == set(range(120))


@BY_NAME
def test_none_held_out_is_as_before_and_knows_nothing(ranker):
    X, captions = drawn(4, seed=0)
    model = clone(ranker).fit(X, captions)
    with pytest.raises(ValueError, match="calibration_fraction=0.1 of the ranker, before it is fitted"):
        found(model, "a green dot")


@BY_NAME
def test_too_few_are_refused_before_anything_is_fitted(ranker):
    with pytest.raises(ValueError, match=r"calibration_fraction=0.2 of 24 images: a risk of 0.1 needs at least 9"):
        clone(ranker).set_params(calibration_fraction=0.2).fit(*drawn(4, seed=0))


def test_groups_are_held_out_whole_and_rows_of_no_weight_are_not():
    X, captions = drawn(20, seed=0)
    groups = np.repeat(np.arange(10), 12)
    weight = np.where(groups == 3, 0.0, 1.0)
    captions = [f"{caption} word{group}" for caption, group in zip(captions, groups, strict=True)]
    model = clone(SOLVED).set_params(calibration_fraction=0.2).fit(X, captions, sample_weight=weight, groups=groups)
    assert model._cutoff.n_images == 24  # two of nine groups
    assert len(model.unknown_words([f"word{group}" for group in range(10)])) == 3


def test_it_is_a_matter_of_cosines():
    with pytest.raises(ValueError, match="similarity='order' is none"):
        clone(TRAINED).set_params(calibration_fraction=0.2, similarity="order").fit(*drawn(20, seed=0))


def test_it_is_saved_and_no_part_of_what_a_model_is_told_by(tmp_path):
    X, captions = drawn(20, seed=0)
    model = clone(SOLVED).set_params(calibration_fraction=0.2).fit(X, captions)
    persistence.save(model, tmp_path / "model")
    opened = persistence.load(tmp_path / "model")
    assert found(opened, "a green dot") == found(model, "a green dot")
    gallery = Gallery(model).add(X[:6], ids=range(6))
    gallery.save(tmp_path / "gallery")
    del opened._cutoff
    assert len(Gallery.load(tmp_path / "gallery", opened)) == 6


def test_another_fit_and_partial_fit_forget_it():
    X, captions = drawn(20, seed=0)
    model = clone(SOLVED).set_params(calibration_fraction=0.2).fit(X, captions)
    assert not hasattr(model.partial_fit(X, captions), "_cutoff")
    model.set_params(calibration_fraction=None).fit(X, captions)
    assert not hasattr(model, "_cutoff")


def test_what_a_gallery_learns_itself_goes_before():
    X, captions = drawn(20, seed=0)
    model = clone(SOLVED).set_params(calibration_fraction=0.2).fit(X, captions)
    gallery = Gallery(model).add(X[:6], ids=range(6)).calibrate(*drawn(10, seed=2), risk=0.5)
    assert gallery._learnt_cutoff.risk == 0.5
    assert Gallery(model)._learnt_cutoff.risk == 0.1
