"""CorrelationRanker: its answers against a naive reference, weights, parts, wide inputs and encoders."""

import pickle
import tracemalloc
import warnings

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.features import TextNGramEncoder
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.persistence import load, save
from sklearn_mm.retrieval import CorrelationRanker, Gallery, NearestNeighborNormalization
from tests import reference

# Embeddings are float32: products of a few hundred columns agree to some units of 1e-7.
TOLERANCE = 2e-5
FIXED = {"regularization": (0.3, 0.1), "random_state": 0}


def _hashes(width=64):
    """A text encoder that learns nothing of its texts."""
    return HashingVectorizer(n_features=width, alternate_sign=False, norm=None)


def _scores(ranker, X, texts):
    return ranker.transform(X) @ ranker.transform_text(texts).T


def _flat(captions):
    return [text for own in captions for text in own]


@pytest.fixture(scope="module")
def wide():
    """80 images of 400 columns that say which of 8 scenes they show, with two captions each."""
    rng = np.random.default_rng(1)
    scene = rng.integers(8, size=80)
    X = rng.normal(size=(8, 400))[scene] + rng.normal(0, 0.5, (80, 400))
    captions = [[f"scene {'abcdefgh'[s]} no {i}", f"{'abcdefgh'[s]} {i % 3}"] for i, s in enumerate(scene)]
    return X.astype(np.float32), captions


def test_scores_equal_a_naive_solution_in_float64(data):
    X, captions = data
    ranker = CorrelationRanker(_hashes(), n_components=64, **FIXED).fit(X, captions)
    texts = _flat(captions)
    rows = np.repeat(np.arange(len(X)), 2)
    T = _hashes().fit_transform(texts).toarray()
    x, t = X[rows], T
    image_map, text_map, correlations = reference.canonical_maps(x, t, np.ones(len(x)), (0.3, 0.1), 1.5)
    standard = (X - X.mean(axis=0, dtype=np.float64)) / X.std(axis=0, dtype=np.float64)
    expected = np.array(reference.score_matrix(standard @ image_map, (T - T.mean(axis=0)) @ text_map))
    np.testing.assert_allclose(_scores(ranker, X, texts), expected, atol=TOLERANCE)
    n = len(ranker.correlations_)
    np.testing.assert_allclose(ranker.correlations_, correlations[:n], atol=1e-7)


def test_captions_averaged_equal_a_naive_solution_on_the_means(data):
    X, captions = data
    ranker = CorrelationRanker(_hashes(), n_components=64, captions="mean", **FIXED).fit(X, captions)
    T = _hashes().fit_transform(_flat(captions)).toarray()
    means = T.reshape(len(X), 2, -1).mean(axis=1)
    image_map, text_map, _ = reference.canonical_maps(X, means, np.ones(len(X)), (0.3, 0.1), 1.5)
    standard = (X - X.mean(axis=0, dtype=np.float64)) / X.std(axis=0, dtype=np.float64)
    expected = np.array(reference.score_matrix(standard @ image_map, (T - T.mean(axis=0)) @ text_map))
    np.testing.assert_allclose(_scores(ranker, X, _flat(captions)), expected, atol=TOLERANCE)


def test_learns_which_caption_fits(data):
    X, captions = data
    ranker = CorrelationRanker(random_state=0).fit(X[:72], captions[:72])
    by_chance = (1 + 5 + 10) / 3 / 24
    assert ranker.score(X[72:], captions[72:]) > 2 * by_chance


@pytest.mark.parametrize("n_reduced", [(2500, 1000), (16, 12)])
def test_a_row_of_weight_2_is_a_row_given_twice(data, n_reduced):
    X, captions = data
    weight = np.ones(len(X))
    weight[[3, 17]] = 2
    twice = np.r_[np.arange(len(X)), 3, 17]
    ranker = CorrelationRanker(n_reduced=n_reduced, random_state=0)
    one = clone(ranker).fit(X, captions, sample_weight=weight)
    two = clone(ranker).fit(X[twice], [captions[row] for row in twice])
    assert one.regularization_ == two.regularization_
    np.testing.assert_array_equal(one.transform(X), two.transform(X))


def test_rows_of_weight_0_are_not_learnt_from(data):
    X, captions = data
    weight = np.r_[np.ones(60), np.zeros(36)]
    one = CorrelationRanker(_hashes(), **FIXED).fit(X, captions, sample_weight=weight)
    other = CorrelationRanker(_hashes(), **FIXED).fit(X[:60], captions[:60])
    np.testing.assert_allclose(one.transform(X), other.transform(X), atol=TOLERANCE)


def test_parts_lead_to_what_one_fit_leads_to(data):
    X, captions = data
    X = X + 100 * np.arange(X.shape[1], dtype=np.float32)  # means that a first part does not have
    X[:40] += 3
    weight = np.linspace(0.5, 2, len(X))
    parts = CorrelationRanker(_hashes(), **FIXED)
    for rows in (slice(0, 40), slice(40, 42), slice(42, 96)):
        parts.partial_fit(X[rows], captions[rows], sample_weight=weight[rows])
    whole = CorrelationRanker(_hashes(), **FIXED).fit(X, captions, sample_weight=weight)
    np.testing.assert_allclose(parts.correlations_, whole.correlations_, atol=1e-6)
    np.testing.assert_allclose(_scores(parts, X, _flat(captions)), _scores(whole, X, _flat(captions)), atol=1e-4)


def test_parts_of_wide_inputs_keep_the_dimensions_of_the_first(wide):
    X, captions = wide
    ranker = CorrelationRanker(_hashes(512), n_reduced=(80, 100), **FIXED)
    parts = clone(ranker).fit(X, captions)  # whose dimensions hold all of X
    parts.partial_fit(X, captions)
    whole = clone(ranker).fit(X, captions)
    # Twice the same rows: the same covariances
    np.testing.assert_allclose(_scores(parts, X, _flat(captions)), _scores(whole, X, _flat(captions)), atol=1e-4)


def test_reduced_dimensions_that_hold_all_change_no_answer(wide):
    X, captions = wide
    whole = CorrelationRanker(_hashes(), n_reduced=400, **FIXED).fit(X, captions)
    ridge = (0.3 * 80 / 400, 0.1)  # the mean variance is that of so many dimensions
    reduced = CorrelationRanker(_hashes(), n_reduced=(80, 400), regularization=ridge).fit(X, captions)
    np.testing.assert_allclose(_scores(reduced, X, _flat(captions)), _scores(whole, X, _flat(captions)), atol=5e-3)


def test_coordinates_that_are_kept_are_those_of_rows_read_again(wide, monkeypatch):
    X, captions = wide
    ranker = CorrelationRanker(_hashes(), n_reduced=(50, 400), **FIXED)  # so few scenes lead anywhere by rounding
    kept = clone(ranker).fit(X, captions)
    monkeypatch.setattr("sklearn_mm.retrieval._coordinates._KEPT_BYTES", 0)
    again = clone(ranker).fit(X, captions)
    np.testing.assert_allclose(_scores(kept, X, _flat(captions)), _scores(again, X, _flat(captions)), atol=1e-4)


def test_reduced_sparse_texts_that_hold_all_change_no_answer(wide):
    X, captions = wide
    mean = {"captions": "mean", "n_components": 30}  # of which the span is that of 80 rows
    whole = CorrelationRanker(_hashes(512), n_reduced=512, regularization=(0.3, 0.1), **mean).fit(X, captions)
    ridge = (0.3, 0.1 * 80 / 512)
    reduced = CorrelationRanker(_hashes(512), n_reduced=(512, 100), regularization=ridge, **mean).fit(X, captions)
    np.testing.assert_allclose(_scores(reduced, X, _flat(captions)), _scores(whole, X, _flat(captions)), atol=5e-3)


def test_wide_inputs_make_no_square_of_their_width():
    rng = np.random.default_rng(0)
    n_terms = 20_000
    X = rng.normal(size=(60, 4000)).astype(np.float32)
    captions = [" ".join(f"w{word}" for word in rng.integers(n_terms, size=30)) for _ in range(60)]
    ranker = CorrelationRanker(_hashes(n_terms), n_reduced=(30, 20), n_components=8, **FIXED)
    tracemalloc.start()
    ranker.fit(X, captions)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # the square of 4,000 columns alone would be 128 MB in float64
    kept = sum(part.nbytes for part in vars(ranker._moments).values() if isinstance(part, np.ndarray))
    assert kept == 8 * (30**2 + 30 * 20 + 2 * 20**2) + 8 * (30 + 20)  # as the docstring says, and two sums
    assert [basis.shape for basis in ranker._text_coordinates.bases] == [(n_terms, 20)]
    assert ranker.transform_text(captions[:2]).shape == (2, 8)


def test_sparse_images_answer_as_dense_ones_in_one_scale(data):
    X, captions = data
    X = np.where(X > 0.8, X, 0)
    X[:, :7] *= np.sqrt(1 / X[:, :7].var(axis=0))  # dense columns are standardised
    X = X[:, :7]
    dense = CorrelationRanker(_hashes(), **FIXED).fit(X, captions)
    thin = CorrelationRanker(_hashes(), **FIXED).fit(sparse.csr_array(X), captions)
    texts = _flat(captions)
    np.testing.assert_allclose(_scores(thin, sparse.csr_array(X), texts), _scores(dense, X, texts), atol=1e-4)


def test_ternary_features_stay_bytes_and_answer_as_floats(data):
    X, captions = data
    ternary = np.sign(np.round(X)).astype(np.int8)
    one, other = (CorrelationRanker(_hashes(), **FIXED).fit(rows, captions) for rows in (ternary, ternary * 1.0))
    # equal rows are one image, in an order by their bytes
    np.testing.assert_allclose(one.transform(ternary), other.transform(ternary * 1.0), atol=TOLERANCE)


def test_text_encoders_side_by_side_weigh_the_same_whatever_their_scale(data):
    X, captions = data

    def ranker(factor, weights=None):
        large = FunctionTransformer(lambda texts: factor * _hashes(16).transform(texts))
        union = FeatureUnion([("words", _hashes(48)), ("large", large)], transformer_weights=weights)
        return CorrelationRanker(union, **FIXED).fit(X, captions)

    texts = _flat(captions)
    np.testing.assert_allclose(_scores(ranker(1000), X, texts), _scores(ranker(1), X, texts), atol=TOLERANCE)
    heavier = ranker(1, {"large": 5.0})
    assert np.abs(_scores(heavier, X, texts) - _scores(ranker(1), X, texts)).max() > 0.01


def test_nested_parameters_of_encoders_are_searched(data):
    X, captions = data
    ranker = CorrelationRanker(make_union(CountVectorizer(), TfidfVectorizer()), **FIXED)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), ranker),
        {
            "correlationranker__text_encoder__tfidfvectorizer__sublinear_tf": [False, True],
            "correlationranker__power": [0.5, 1.5],
        },
        scoring=RetrievalScorer(),
        refit="rsum",
        cv=2,
        error_score="raise",
    ).fit(X, captions)
    assert len(search.cv_results_["params"]) == 4
    assert set(search.predict(X[:4])) <= set(_flat(captions))


def test_encoders_that_train_are_refused_and_frozen_ones_are_used(data):
    X, captions = data
    encoder = TextNGramEncoder(n_components=8, word_dim=8, max_epochs=1, random_state=0)
    with pytest.raises(TypeError, match=r"text_encoder is a TextNGramEncoder, which trains.*FrozenEstimator"):
        CorrelationRanker(encoder).fit(X, captions)
    with pytest.raises(TypeError, match="text_encoder__textngramencoder is a TextNGramEncoder"):
        CorrelationRanker(make_union(CountVectorizer(), encoder)).fit(X, captions)
    texts = _flat(captions)
    encoder.fit(texts, y=np.repeat(np.arange(len(X)), 2))
    before = encoder.transform(texts)
    ranker = CorrelationRanker(FrozenEstimator(encoder), **FIXED).fit(X, captions)
    np.testing.assert_array_equal(ranker.text_encoder_.transform(texts), before)
    assert ranker.transform_text(texts).shape == (len(texts), len(ranker.correlations_))


def test_an_image_encoder_comes_before(data):
    X, captions = data
    images = [row.tolist() for row in X]
    encoder = FunctionTransformer(lambda rows: np.asarray(rows, dtype=np.float32))
    ranker = CorrelationRanker(_hashes(), encoder, **FIXED).fit(images, captions)
    plain = CorrelationRanker(_hashes(), **FIXED).fit(X, captions)
    np.testing.assert_allclose(ranker.transform(images), plain.transform(X), atol=TOLERANCE)


def test_unreadable_pictures_are_left_out(data):
    from sklearn_mm._unreadable import mark_features

    X, captions = data
    marked = mark_features(X[2:].copy(), [(0, "a.png", "broken"), (1, "b.png", "broken")], len(X))
    ranker = CorrelationRanker(_hashes(), **FIXED).fit(marked, captions)
    plain = CorrelationRanker(_hashes(), **FIXED).fit(X[2:], captions[2:])
    np.testing.assert_allclose(ranker.transform(X), plain.transform(X), atol=TOLERANCE)
    assert ranker.search_images(_flat(captions), 94)[1].min() == 2
    with pytest.raises(ImageReadError, match=r"a\.png"):
        ranker.transform(marked)


def test_regularization_is_chosen_by_what_is_held_out():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 150)).astype(np.float32)
    names = "abcdefghij"
    captions = [f"{names[int(row[:10].argmax())]} {i}" for i, row in enumerate(X)]
    new = rng.normal(size=(200, 150)).astype(np.float32)
    expected = [names[int(row[:10].argmax())] for row in new]

    def accuracy(ranker):
        ranker.fit(X, captions).set_gallery(texts=list(names))
        return np.mean(ranker.predict(new) == expected)

    encoder = TfidfVectorizer(token_pattern=r"\b[a-j]\b")
    chosen = CorrelationRanker(encoder, random_state=0)
    tiny = CorrelationRanker(encoder, regularization=1e-4)
    assert accuracy(chosen) > accuracy(tiny) + 0.05
    assert chosen.regularization_[0] > 0.1


def test_groups_are_held_out_together(data, monkeypatch):
    from sklearn_mm.retrieval import _correlation

    X, captions = data
    groups = np.arange(len(X)) // 4
    seen = []
    original = _correlation.held_out_rows
    monkeypatch.setattr(
        _correlation, "held_out_rows", lambda group, *rest: seen.append(original(group, *rest)) or seen[-1]
    )
    CorrelationRanker(random_state=0).fit(X, captions, groups=groups)
    assert seen
    assert all(len(part) == len(X) and part.sum() % 4 == 0 for part in seen)


def test_partial_fit_follows_fit_and_replaces_the_galleries(data):
    X, captions = data
    ranker = CorrelationRanker(_hashes(), **FIXED).fit(X[:60], captions[:60]).partial_fit(X[60:], captions[60:])
    whole = CorrelationRanker(_hashes(), **FIXED).fit(X, captions)
    np.testing.assert_allclose(ranker.correlations_, whole.correlations_, atol=1e-6)
    assert set(ranker.gallery_texts_) == set(_flat(captions[60:]))


def test_a_saved_ranker_goes_on_learning(data, tmp_path):
    X, captions = data
    ranker = CorrelationRanker(n_reduced=(8, 20), **FIXED).fit(X[:60], captions[:60])
    save(ranker, tmp_path / "model")
    joblib.dump(ranker, tmp_path / "model.joblib")
    for opened in (load(tmp_path / "model"), joblib.load(tmp_path / "model.joblib")):
        again = opened.partial_fit(X[60:], captions[60:]).transform(X)
        np.testing.assert_array_equal(again, clone_of(ranker).partial_fit(X[60:], captions[60:]).transform(X))


def test_a_ranker_that_keeps_no_covariances_answers_alike_is_smaller_and_says_why_it_stops(data, tmp_path):
    X, captions = data
    whole = CorrelationRanker(_hashes(), **FIXED).fit(X, captions)
    small = CorrelationRanker(_hashes(), store_covariance=False, **FIXED).fit(X, captions)
    np.testing.assert_array_equal(small.transform(X), whole.transform(X))
    np.testing.assert_array_equal(small.predict(X[:9]), whole.predict(X[:9]))
    spared = 8 * (X.shape[1] ** 2 + X.shape[1] * 64 + 2 * 64**2)
    assert len(pickle.dumps(small)) < len(pickle.dumps(whole)) - spared
    save(small, tmp_path / "model")
    for ranker in (small, load(tmp_path / "model")):
        with pytest.raises(ValueError, match="store_covariance was False"):
            ranker.partial_fit(X, captions)
    parts = CorrelationRanker(_hashes(), store_covariance=False, **FIXED).partial_fit(X[:60], captions[:60])
    parts.partial_fit(X[60:], captions[60:])
    np.testing.assert_allclose(parts.correlations_, whole.correlations_, atol=1e-6)


def test_a_ranker_of_before_goes_on_learning_and_its_gallery_opens(data, monkeypatch):
    X, captions = data
    ranker = CorrelationRanker(_hashes(), **FIXED).fit(X[:60], captions[:60])
    state_of = CorrelationRanker.__getstate__

    def state_of_before(self):
        return {name: value for name, value in state_of(self).items() if name != "store_covariance"}

    old = CorrelationRanker.__new__(CorrelationRanker)
    old.__setstate__(state_of_before(ranker))
    fingerprint = Gallery(old)._embedder.fingerprint()
    assert old.partial_fit(X[60:], captions[60:]).store_covariance
    monkeypatch.setattr(CorrelationRanker, "__getstate__", state_of_before)  # which is what a digest is taken of
    assert fingerprint == Gallery(ranker)._embedder.fingerprint()


def clone_of(fitted):
    import copy

    return copy.deepcopy(fitted)


def test_components_have_names(data):
    X, captions = data
    ranker = CorrelationRanker(n_components=5, **FIXED).fit(X, captions)
    assert list(ranker.get_feature_names_out()) == [f"correlationranker{i}" for i in range(5)]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"regularization": (1.0, 1.0, 1.0)}, "regularization must be one positive number, or two"),
        ({"regularization": (1.0, -1.0)}, "regularization must be one positive number, or two"),
        ({"n_reduced": (10, 0.5)}, "n_reduced must be one positive number, or two"),
        ({"regularization": 0}, "regularization"),
        ({"captions": "all"}, "captions"),
    ],
)
def test_bad_parameters_are_named(data, parameters, message):
    with pytest.raises(ValueError, match=message):
        CorrelationRanker(**parameters).fit(*data)


def test_words_of_every_script_are_known():
    rng = np.random.default_rng(0)
    X = np.tile(np.eye(4, dtype=np.float32), (10, 1)) + rng.normal(0, 0.1, (40, 4)).astype(np.float32)
    captions = ["हिन्दी कुत्ता", "一只狗", "Café noir", "ein Hund"] * 10
    ranker = CorrelationRanker(random_state=0).fit(X, captions)
    assert ranker.predict(X[:4]).tolist() == captions[:4]
    same = ranker.transform_text(["Café noir", "Cafe\u0301 noir"])
    np.testing.assert_array_equal(same[0], same[1])


def test_constant_columns_and_captions_are_no_error():
    X = np.ones((12, 3), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranker = CorrelationRanker().fit(X, ["the same words"] * 12, groups=range(12))
        assert np.isfinite(ranker.transform(X)).all()
        assert np.isfinite(ranker.transform_text(["other words"])).all()


def test_hubs_are_left_where_images_held_out_are_worse_without_them(data, monkeypatch):
    X, captions = data
    assert CorrelationRanker(random_state=0, hubness="nnn").fit(X, captions).hubness_ is not None
    rng = np.random.default_rng(0)
    noise = lambda self, items: rng.normal(0, 10, len(items)).astype(np.float32)  # noqa: E731  in the place of a method
    monkeypatch.setattr(NearestNeighborNormalization, "image_offsets", noise)
    monkeypatch.setattr(NearestNeighborNormalization, "text_offsets", noise)
    assert CorrelationRanker(random_state=0).fit(X, captions).hubness_ is None
    assert CorrelationRanker(random_state=0, hubness="nnn").fit(X, captions).hubness_ is not None
    given = CorrelationRanker(random_state=0, regularization=1.0)  # holds nothing out
    assert given.fit(X, captions).hubness_ is not None
