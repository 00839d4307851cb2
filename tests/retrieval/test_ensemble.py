"""Several rankers as one."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_mm.exceptions import ImageReadError, MergedRowsWarning
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.index import FaissIndex
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.persistence import load, save
from sklearn_mm.retrieval import JointEmbeddingRanker, NearestNeighborNormalization, RankerEnsemble

ATOL = 1e-5  # float32 products of unit vectors
QUICK = {"n_components": 8, "max_epochs": 3, "batch_size": 16, "precision": "float32", "device": "cpu", "n_jobs": 1}
LEARNS = {"n_components": 16, "max_epochs": 20, "learning_rate": 0.01}


def ranker(**parameters):
    return JointEmbeddingRanker(**{**QUICK, **parameters})


def two(**parameters):
    """An ensemble of two different rankers."""
    members = [("words", ranker()), ("tfidf", ranker(text_encoder=TfidfVectorizer(), n_components=6))]
    return RankerEnsemble(members, **{"weights": None, "random_state": 0, "hubness": None, **parameters})


@pytest.fixture(scope="module")
def fitted(data):
    X, y = data
    return two(weights=[1, 2]).fit(X, y)


class Halves(BaseEstimator):
    """A ranker of one's own: by the means of features and of letters, of no unit length, and without weights."""

    def __init__(self, scale=3.0):
        self.scale = scale

    def fit(self, X, y):
        self.fitted_ = True
        return self

    def transform(self, X):
        return self.scale * np.asarray(X)[:, :4].astype(np.float64)

    def transform_text(self, texts):
        return [[text.count("r"), text.count("g"), text.count("b"), text.count("k")] for text in texts]


# What it adds ---------------------------------------------------------------------------------------------------------


def test_scores_are_weighted_means_of_members_scores_each_divided_by_its_spread(data, fitted):
    X, y = data
    texts = [own[0] for own in y[:20]]
    shares = np.array([1, 2]) / 3 / fitted.spreads_
    expected = sum(
        share * member.transform(X) @ member.transform_text(texts).T
        for share, member in zip(shares, fitted.estimators_, strict=True)
    )
    scores = fitted.transform(X) @ fitted.transform_text(texts).T
    np.testing.assert_allclose(scores, expected / shares.sum(), atol=ATOL)
    np.testing.assert_allclose(fitted.weights_, [1 / 3, 2 / 3])


def test_spreads_are_those_of_members_scores_of_training_images_and_texts(data, fitted):
    X, y = data
    for spread, member in zip(fitted.spreads_, fitted.estimators_, strict=True):
        scores = member.transform(X) @ member.transform_text([own[0] for own in y]).T
        assert spread == pytest.approx(scores.std(), rel=0.05)


def test_embeddings_have_unit_length_and_are_as_wide_as_all_members(data, fitted):
    X, y = data
    for embedding in (fitted.transform(X), fitted.transform_text(y[0])):
        assert embedding.shape[1] == 14
        assert embedding.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=ATOL)


def test_one_gallery_holds_what_all_members_were_fitted_on_and_theirs_are_empty(data, fitted):
    X, y = data
    expected = fitted.transform(X) @ fitted.transform_text(["green star"]).T
    scores, found = fitted.search_images(["green star"], k=96)
    np.testing.assert_allclose(np.sort(scores[0]), np.sort(expected[:, 0]), atol=ATOL)
    np.testing.assert_allclose(expected[found[0], 0], scores[0], atol=ATOL)
    assert set(fitted.gallery_texts_) == {text for own in y for text in own}
    with pytest.raises(ValueError, match="has 0 items"):
        fitted.named_estimators_.words.search_images(["green star"], 1)
    with pytest.raises(ValueError, match="has 0 items"):
        fitted.named_estimators_.words.predict(X[:1])
    assert fitted.named_estimators_.words.set_gallery(images=X[:3]).search_images(["green star"], 3)[1].shape == (1, 3)


def test_hubs_are_corrected_in_the_space_of_all_members(data, fitted):
    X, y = data
    ensemble = two(weights=[1, 2], hubness=NearestNeighborNormalization(n_neighbors=8)).fit(X, y)
    image, text = ensemble.transform(X), ensemble.transform_text([text for own in y for text in own])
    np.testing.assert_array_equal(image, fitted.transform(X))
    offsets = clone(ensemble.hubness).fit(image, text).text_offsets(ensemble.transform_text(y[0]))
    corrected = ensemble.set_gallery(texts=y[0]).decision_function(X)
    np.testing.assert_allclose(corrected, image @ ensemble.transform_text(y[0]).T - offsets, atol=ATOL)


def test_another_index_searches_the_gallery_of_all(data, fitted):
    X, y = data
    pytest.importorskip("faiss")
    ensemble = two(weights=[1, 2], index=FaissIndex()).fit(X, y)
    np.testing.assert_array_equal(ensemble.search_images(y[0], 3)[1], fitted.search_images(y[0], 3)[1])


def test_two_members_find_more_than_each_of_them_over_three_seeds(data):
    X, y = data
    train, test = slice(0, 64), slice(64, 96)
    first, second = (
        FunctionTransformer(lambda X, columns=columns: X[:, columns]) for columns in ([0, 1, 2, 3], [4, 5, 6])
    )
    scores = []
    for seed in range(3):
        members = [
            ("colour", make_pipeline(first, ranker(**LEARNS))),
            ("shape", make_pipeline(second, ranker(**LEARNS))),
        ]
        ensemble = RankerEnsemble(members, weights=None, random_state=seed).fit(X[train], y[train])
        scores.append([each.score(X[test], y[test]) for each in (*ensemble.estimators_, ensemble)])
    colour, shape, both = np.mean(scores, axis=0)
    assert both > max(colour, shape) + 0.1


# Members --------------------------------------------------------------------------------------------------------------


def test_members_are_dropped_replaced_and_set_by_name(data):
    X, y = data
    ensemble = two(weights=[1, 3]).set_params(words="drop", tfidf__max_epochs=2).fit(X, y)
    assert list(ensemble.named_estimators_) == ["tfidf"]
    assert ensemble.estimators_[0].n_epochs_ == 2
    np.testing.assert_array_equal(ensemble.weights_, [1])
    ensemble.set_params(words=ranker(n_components=4)).fit(X, y)
    assert ensemble.transform(X).shape[1] == 10
    np.testing.assert_array_equal(ensemble.weights_, [0.25, 0.75])


def test_without_members_one_is_solved_for_and_one_trained(data):
    X, y = data
    ensemble = RankerEnsemble(random_state=0).fit(X[:40], y[:40])
    assert [type(member).__name__ for member in ensemble.estimators_] == ["CorrelationRanker", "JointEmbeddingRanker"]
    assert list(ensemble.named_estimators_) == ["solved", "trained"]


def test_fitting_leaves_the_members_given_alone(data):
    X, y = data
    ensemble = two()
    members = dict(ensemble.estimators)
    ensemble.fit(X, y)
    assert all(ensemble.get_params()[name] is member for name, member in members.items())
    assert not any(hasattr(member, "image_head_") for member in members.values())
    assert all(member.random_state is None for member in members.values())


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ([], ValueError, "at least one ranker"),
        ([("a", "drop")], ValueError, "at least one ranker"),
        ([("a", ranker()), ("a", ranker())], ValueError, "not unique"),
        ([("weights", ranker())], ValueError, "conflict with constructor arguments"),
        ([("a__b", ranker())], ValueError, "must not contain __"),
        ([ranker()], ValueError, r"list of \(name, ranker\)"),
        ([("a", JointEmbeddingRanker)], TypeError, "got the class JointEmbeddingRanker; call it"),
        ([("a", StandardScaler())], TypeError, "the member 'a', got StandardScaler"),
        ([("a", make_pipeline(StandardScaler(), StandardScaler()))], TypeError, "the member 'a', got"),
        ([("a", ranker(similarity="order"))], ValueError, "similarity='order'.*set similarity='cosine'"),
    ],
)
def test_what_is_no_list_of_rankers_is_refused(members, error, message, data):
    X, y = data
    with pytest.raises(error, match=message):
        RankerEnsemble(members).fit(X, y)


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [[1, 2]], [0, 0], [-1, 2], [np.nan, 1], "best"])
def test_weights_have_to_fit_the_members(weights, data):
    X, y = data
    with pytest.raises(ValueError, match="weight"):
        two(weights=weights).fit(X, y)


def test_a_member_of_weight_0_takes_no_room(data):
    X, y = data
    assert two(weights=[0, 1]).fit(X, y).transform(X).shape[1] == 6


def test_pipelines_choose_the_columns_of_their_ranker_in_a_frame_by_name(data):
    X, y = data
    frame = pd.DataFrame(X, columns=[f"c{column}" for column in range(12)])
    members = [
        ("all", ranker()),
        ("few", make_pipeline(make_column_transformer((StandardScaler(), ["c0", "c1", "c5"])), ranker())),
    ]
    ensemble = RankerEnsemble(members, weights=None, random_state=0).fit(frame, y)
    assert ensemble.named_estimators_.few[-1].n_features_in_ == 3
    assert list(ensemble.feature_names_in_) == list(frame.columns)
    assert ensemble.search_texts(frame[:4], 2)[0].shape == (4, 2)
    assert ensemble.set_gallery(images=frame[:5]).search_images(["green star"], 5)[1].max() == 4


def test_a_search_an_ensemble_and_a_ranker_of_ones_own_are_members(data):
    X, y = data
    search = GridSearchCV(ranker(), {"max_epochs": [1, 2]}, cv=2, scoring=RetrievalScorer(), refit="rsum")
    members = [("search", search), ("seeds", RankerEnsemble(ranker(), n_seeds=2, weights=None)), ("own", Halves())]
    ensemble = RankerEnsemble(members, weights=None, random_state=0, hubness=None).fit(X, y)
    assert ensemble.transform(X).shape[1] == 8 + 16 + 4
    scores = ensemble.transform(X) @ ensemble.transform_text(y[3]).T
    assert ensemble.set_gallery(images=X, texts=y[3]).decision_function(X) == pytest.approx(scores, abs=ATOL)


def test_sparse_features_are_taken(data):
    X, y = data
    thin = sparse.csr_array(np.maximum(X, 0))
    ensemble = two(weights="auto").fit(thin, y)
    np.testing.assert_allclose(np.linalg.norm(ensemble.transform(thin), axis=1), 1, atol=ATOL)


# Seeds ----------------------------------------------------------------------------------------------------------------


def test_one_ranker_is_fitted_with_several_seeds(data):
    X, y = data
    ensemble = RankerEnsemble(ranker(random_state=7), n_seeds=3, weights=None, random_state=0).fit(X, y)
    assert list(ensemble.named_estimators_) == ["seed_0", "seed_1", "seed_2"]
    seeds = [member.random_state for member in ensemble.estimators_]
    assert len(set(seeds)) == 3
    alone = ranker(random_state=seeds[1]).fit(X, y)
    np.testing.assert_array_equal(alone.transform(X), ensemble.estimators_[1].transform(X))
    assert ensemble.get_params()["estimators__max_epochs"] == 3


def test_several_rankers_of_several_seeds_are_ensembles_in_an_ensemble(data):
    X, y = data
    with pytest.raises(ValueError, match=r"n_seeds=2.*RankerEnsemble\(ranker, n_seeds=3\)"):
        two(n_seeds=2).fit(X, y)


def test_random_states_of_none_are_drawn_from_the_ensembles_and_others_stay(data):
    X, y = data
    members = [("a", ranker()), ("b", make_pipeline(StandardScaler(), ranker())), ("c", ranker(random_state=5))]
    first, again = (RankerEnsemble(members, weights=None, random_state=3).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(first.transform(X), again.transform(X))
    a, b, c = first.estimators_
    assert a.random_state is not None
    assert a.random_state != b[-1].random_state
    assert c.random_state == 5


# Weights --------------------------------------------------------------------------------------------------------------


def test_a_member_that_knows_nothing_is_found_out_on_images_held_out(data):
    X, y = data
    noise = FunctionTransformer(lambda X: X[:, 7:])
    members = [("knows", ranker(**LEARNS)), ("guesses", make_pipeline(noise, ranker(**LEARNS)))]
    ensemble = RankerEnsemble(members, random_state=0, validation_fraction=0.3).fit(X[:64], y[:64])
    assert ensemble.weights_[0] > 0.7
    equal = clone(ensemble).set_params(weights=None).fit(X[:64], y[:64])
    assert ensemble.score(X[64:], y[64:]) > equal.score(X[64:], y[64:])


class Counting(JointEmbeddingRanker):
    """Notes the weights that each fit is given."""

    seen = []

    def fit(self, X, y, sample_weight=None, groups=None):
        self.seen.append(None if sample_weight is None else np.array(sample_weight))
        return super().fit(X, y, sample_weight=sample_weight, groups=groups)


@pytest.fixture
def seen():
    Counting.seen.clear()
    return Counting.seen


def test_members_are_fitted_again_where_many_images_were_held_out(data, seen):
    X, y = data
    RankerEnsemble([("a", Counting(**QUICK))], random_state=0, validation_fraction=0.25).fit(X, y)
    assert [None if weight is None else int((weight == 0).sum()) for weight in seen] == [24, None]


def test_members_are_fitted_once_where_few_images_were_held_out(data, seen):
    X, y = data
    RankerEnsemble([("a", Counting(**QUICK))], random_state=0, validation_fraction=0.04).fit(X, y)
    assert [int((weight == 0).sum()) for weight in seen] == [4]


def test_groups_and_rows_of_one_image_are_held_out_together(data, seen):
    X, y = data
    groups = np.arange(96) // 4
    given = np.where(np.arange(96) < 4, 0.0, 2.0)
    ensemble = RankerEnsemble([("a", Counting(**QUICK))], random_state=0, validation_fraction=0.2)
    ensemble.fit(X, y, groups=groups, sample_weight=given)
    held_out = (seen[0] == 0) & (given > 0)
    assert 16 <= held_out.sum() <= 24
    assert all(len(set(held_out[groups == group])) == 1 for group in range(24))
    np.testing.assert_array_equal(seen[0][~held_out], given[~held_out])
    seen.clear()
    pairs = np.repeat(np.arange(96), 2)
    with pytest.warns(MergedRowsWarning, match="192 rows are 96 pictures"):
        ensemble.fit(X[pairs], [text for own in y for text in own])
    assert len(seen[0]) == 96


def test_nothing_is_held_out_of_few_images(data, seen):
    X, y = data
    ensemble = RankerEnsemble([("a", Counting(**QUICK)), ("b", Counting(**QUICK))], random_state=0).fit(X[:9], y[:9])
    assert seen == [None, None]
    np.testing.assert_array_equal(ensemble.weights_, 0.5)


def test_a_few_images_held_out_say_little(data):
    X, y = data
    noise = FunctionTransformer(lambda X: X[:, 7:])
    members = [("knows", ranker(**LEARNS)), ("guesses", make_pipeline(noise, ranker(**LEARNS)))]
    ensemble = RankerEnsemble(members, random_state=0, validation_fraction=0.02).fit(X[:64], y[:64])
    assert 0.5 < max(ensemble.weights_) < 0.6


def test_a_member_without_weights_is_named_where_images_are_to_be_held_out(data):
    X, y = data
    with pytest.raises(TypeError, match="the member 'own', a Halves, does not take.*weights='auto'"):
        RankerEnsemble([("own", Halves())]).fit(X, y)
    with pytest.raises(TypeError, match="groups was given, which the member 'own'"):
        RankerEnsemble([("own", Halves())], weights=None).fit(X, y, groups=np.arange(96))


# partial_fit ----------------------------------------------------------------------------------------------------------


def test_partial_fit_trains_members_further(data):
    X, y = data
    ensemble = two(weights="auto")
    alone = [ranker(), ranker(text_encoder=TfidfVectorizer(), n_components=6)]
    for part in (slice(0, 48), slice(48, 96)):
        ensemble.partial_fit(X[part], y[part])
        for member, own in zip(alone, ensemble.estimators_, strict=True):
            member.set_params(random_state=own.random_state).partial_fit(X[part], y[part])
    for member, own in zip(alone, ensemble.estimators_, strict=True):
        np.testing.assert_array_equal(own.transform(X), member.transform(X))
    np.testing.assert_array_equal(ensemble.weights_, 0.5)
    assert ensemble.search_images(["green star"], 48)[1].max() == 47


def test_partial_fit_keeps_the_weights_that_fit_has_learnt(data):
    X, y = data
    ensemble = two(weights="auto").fit(X, y)
    before = ensemble.weights_
    np.testing.assert_array_equal(ensemble.partial_fit(X[:20], y[:20]).weights_, before)


def test_there_is_no_partial_fit_where_a_member_has_none():
    assert not hasattr(RankerEnsemble([("a", ranker()), ("b", Halves())]), "partial_fit")
    assert hasattr(RankerEnsemble([("a", ranker()), ("b", "drop")]), "partial_fit")
    assert hasattr(RankerEnsemble(ranker()), "partial_fit")


# scikit-learn's tools -------------------------------------------------------------------------------------------------


def test_a_search_sets_parameters_of_members_and_leaves_members_out(data):
    X, y = data
    grid = {"words__loss": ["infonce", "ranking"], "tfidf": ["drop", ranker(n_components=5)]}
    search = GridSearchCV(two(), grid, scoring=RetrievalScorer(), refit="rsum", cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert len(search.predict(X[:3])) == 3


@pytest.mark.parametrize("backend", [pytest.param("loky", marks=pytest.mark.slow), "threading"])
def test_members_fitted_at_the_same_time_are_the_same_to_the_bit(backend, data):
    X, y = data
    expected = two().fit(X, y)
    with joblib.parallel_config(backend=backend):
        ensemble = two(n_jobs=2).fit(X, y)
    np.testing.assert_array_equal(ensemble.transform(X), expected.transform(X))
    np.testing.assert_array_equal(ensemble.decision_function(X), expected.decision_function(X))


def test_weights_and_groups_reach_all_members(data, seen):
    X, y = data
    weight, groups = np.where(np.arange(96) < 8, 0.0, 1.0), np.arange(96) // 2
    members = [("a", Counting(**QUICK)), ("b", make_pipeline(StandardScaler(), Counting(**QUICK)))]
    RankerEnsemble(members, weights=None).fit(X, y, sample_weight=weight, groups=groups)
    assert len(seen) == 2
    for given in seen:
        np.testing.assert_array_equal(given, weight)


def test_routing_gives_members_what_they_have_not_refused(data, seen):
    X, y = data
    weight = np.where(np.arange(96) < 8, 0.0, 1.0)
    with config_context(enable_metadata_routing=True):
        wants = Counting(**QUICK).set_fit_request(sample_weight="own_weight")
        members = [
            ("says nothing", Counting(**QUICK)),
            ("refuses", Counting(**QUICK).set_fit_request(sample_weight=False)),
            ("pipeline", make_pipeline(StandardScaler().set_fit_request(sample_weight=False), wants)),
        ]
        ensemble = RankerEnsemble(members, weights=None, random_state=0).set_fit_request(sample_weight=True)
        pipeline = Pipeline([("scale", StandardScaler().set_fit_request(sample_weight=False)), ("rank", ensemble)])
        pipeline.fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(seen[0], weight)
    assert seen[1] is None
    np.testing.assert_array_equal(seen[2], weight)


class Counter:
    """A callback that counts epochs."""

    def __init__(self):
        self.epochs = 0

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, metadata, fitted_estimator):
        self.epochs += context.task_name == "epoch"


def test_callbacks_of_members_are_called(data):
    X, y = data
    counter = Counter()
    ensemble = two().set_params(words=ranker().set_callbacks(counter))
    ensemble.fit(X, y)
    assert counter.epochs == 3


def test_it_is_shown_with_its_members(fitted):
    assert "JointEmbeddingRanker" in fitted._repr_html_()
    assert "tfidf" in fitted._repr_html_()


# Pictures -------------------------------------------------------------------------------------------------------------


def _network(**parameters):
    return FullNetworkEmbedding(
        "squeezenet1_1", weights=None, image_size=32, layers="last", discretize=False, precision="float32", **parameters
    )


def test_members_with_encoders_of_their_own_leave_out_what_one_of_them_cannot_read(shapes):
    pictures = list(shapes.images[:12])
    pictures[3] = b"no picture"
    members = [
        ("inside", ranker(image_encoder=_network(on_error="skip"))),
        ("before", make_pipeline(_network(on_error="skip"), ranker())),
    ]
    ensemble = RankerEnsemble(members, weights=None, random_state=0)
    with pytest.warns(UserWarning, match="no picture|could not be read|row 3"):
        ensemble.fit(pictures, shapes.captions[:12])
    found = ensemble.search_images(["a square"], 11)[1]
    assert sorted(found[0]) == [row for row in range(12) if row != 3]
    with pytest.warns(UserWarning), pytest.raises(ImageReadError):
        ensemble.transform(pictures)
    with pytest.warns(UserWarning):
        ensemble.set_gallery(images=pictures[2:5])
    assert sorted(ensemble.search_images(["a square"], 2)[1][0]) == [0, 2]


def test_pictures_that_an_embedding_before_has_left_out_are_never_found(shapes):
    pictures = list(shapes.images[:16])
    pictures[5] = b"no picture"
    pipeline = make_pipeline(_network(on_error="skip"), two(weights="auto"))
    with pytest.warns(UserWarning):
        pipeline.fit(pictures, shapes.captions[:16])
    found = pipeline[-1].search_images(["a red square"], 15)[1]
    assert sorted(found[0]) == [row for row in range(16) if row != 5]


# Persistence ----------------------------------------------------------------------------------------------------------

OPEN = """
import sys, warnings
import numpy as np
warnings.simplefilter("error")
import joblib
models = [joblib.load(sys.argv[1] + "/model.joblib")]
from sklearn_mm.persistence import load
models.append(load(sys.argv[1] + "/model"))
X = np.load(sys.argv[1] + "/X.npy")
for number, model in enumerate(models):
    np.savez(f"{sys.argv[1]}/{number}.npz", image=model.transform(X), scores=model.decision_function(X),
             predicted=model.predict(X).astype(str), names=list(model.named_estimators_))
"""


@pytest.mark.slow
def test_it_answers_to_the_bit_in_a_fresh_process(data, fitted, tmp_path, forked):
    X, _ = data
    joblib.dump(fitted, tmp_path / "model.joblib")
    save(fitted, tmp_path / "model")
    np.save(tmp_path / "X.npy", X)
    status, output = forked(OPEN, tmp_path)
    assert status == [0], output
    for number in range(2):
        with np.load(tmp_path / f"{number}.npz") as answers:
            np.testing.assert_array_equal(answers["image"], fitted.transform(X))
            np.testing.assert_array_equal(answers["scores"], fitted.decision_function(X))
            np.testing.assert_array_equal(answers["predicted"], fitted.predict(X).astype(str))
            assert list(answers["names"]) == ["words", "tfidf"]


def test_a_saved_ensemble_has_its_parameters_and_fits_again(data, fitted, tmp_path):
    X, y = data
    save(fitted, tmp_path / "model")
    opened = load(tmp_path / "model")
    assert opened.get_params()["tfidf__n_components"] == 6
    np.testing.assert_array_equal(clone(opened).fit(X, y).transform(X), fitted.transform(X))
    assert len(pickle.dumps(fitted)) < 1.2e6
