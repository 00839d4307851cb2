"""Threads: a fitted estimator answers all of them as it answers one, and fits side by side are those one by one."""

import importlib
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator
from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import (
    FullNetworkEmbedding,
    ImageCNNEncoder,
    MultiScaleCNNEncoder,
    TagVectorizer,
    TextCNNEncoder,
    TextGRUEncoder,
    TextNGramEncoder,
    TextSequenceEncoder,
)
from sklearn_mm.index import ExactIndex, FaissIndex
from sklearn_mm.losses import InfoNCELoss, InstanceLoss, RankingLoss
from sklearn_mm.metrics import AnnotationScorer, RetrievalScorer
from sklearn_mm.retrieval import JointEmbeddingRanker

N_THREADS = 8
N_PICTURES = 16
HERE = {"device": "cpu", "precision": "float32"}
SMALL = {**HERE, "random_state": 0, "max_epochs": 1, "batch_size": 8}
READING = {"image_size": 32, "weights": None, **HERE}


@pytest.fixture(autouse=True)
def _switching_often():
    """Let threads take turns a hundred times as often as usual: what can go wrong between them does."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture(autouse=True)
def _global_states_are_left_alone():
    """Neither the random numbers nor the number of threads of the process change."""
    before, n_threads = torch.get_rng_state(), torch.get_num_threads()
    yield
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == n_threads


@cache
def shapes():
    return make_captioned_shapes(N_PICTURES, image_size=32, random_state=0)


def pictures():
    return shapes().images


def captions():
    return shapes().captions


def texts():
    return [own[0] for own in captions()]


@cache
def features():
    rng = np.random.default_rng(0)
    target = shapes().target
    return (target @ rng.normal(size=(target.shape[1], 12))).astype(np.float32)


def labels():
    return shapes().tags


def network(n_filters=8):
    """A network of one's own with maps of two sizes, and an activation function behind each layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, n_filters, 3, stride=4, padding=1),
            nn.ReLU(),
            nn.Conv2d(n_filters, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(6 * 4 * 4, 5),
            nn.ReLU(),
            nn.Linear(5, 3),
        )


def full_network(backbone=None, **parameters):
    return FullNetworkEmbedding(network() if backbone is None else backbone, **{**READING, **parameters})


def scales(**parameters):
    return MultiScaleCNNEncoder(network(), **READING, n_components=8, random_state=0, **parameters)


def ranker(text_encoder=None, image_encoder=None, **parameters):
    return JointEmbeddingRanker(text_encoder, image_encoder, **{**SMALL, "n_components": 8, **parameters})


def searching(ranker, X):
    """Everything that a ranker answers, for pictures or features."""
    found = [ranker.transform(X), ranker.predict(X), ranker.decision_function(X), *ranker.search_texts(X, 3)]
    return [*found, *ranker.search_images(texts()[:2], 3)]


def annotating(annotator, X):
    answers = [annotator.decision_function(X), annotator.predict_proba(X), annotator.predict_count(X)]
    return [*answers, *(np.array(own) for own in annotator.predict(X))]


def transforming(transformer, X):
    return [transformer.transform(X)]


# Of each estimator how it is made, what it is fitted on, and what is asked of it, row by row.
ANSWERS = {
    "full network": (full_network(), pictures, None, transforming),
    "full network, random weights": (full_network("shufflenet_v2_x0_5", layers=6), pictures, None, transforming),
    "full network, behind activations": (full_network(activation="post"), pictures, None, transforming),
    "full network, last, ten crops": (full_network(layers="last", crops="ten"), pictures, None, transforming),
    "picture network": (ImageCNNEncoder(network(), **READING), pictures, None, transforming),
    "picture scales": (scales(), pictures, None, transforming),
    "n-grams": (TextNGramEncoder(8, **SMALL), texts, texts, transforming),
    "text CNN": (TextCNNEncoder(8, width=0.01, word_dim=16, **SMALL), texts, texts, transforming),
    "recurrent": (TextGRUEncoder(8, **SMALL), texts, texts, transforming),
    "sequence": (TextSequenceEncoder(8, phrase_dim=16, **SMALL), texts, texts, transforming),
    "tags": (TagVectorizer(), labels, None, lambda tags, X: [tags.transform(X).toarray()]),
    "ranker": (ranker(), features, captions, searching),
    "ranker, order": (ranker(similarity="order", loss=RankingLoss(0.1)), features, captions, searching),
    "ranker, frozen texts": (ranker(TfidfVectorizer()), features, captions, searching),
    "ranker, end to end": (ranker(None, scales()), pictures, captions, searching),
    "ranker, frozen network": (ranker(None, full_network()), pictures, captions, searching),
    "annotator": (MultiLabelAnnotator(**SMALL, label_count="predict"), features, labels, annotating),
    "annotator, frozen network": (
        MultiLabelAnnotator(image_encoder=full_network(), **SMALL),
        pictures,
        labels,
        annotating,
    ),
    "counts": (LabelCountPredictor(**SMALL), features, labels, lambda counts, X: [counts.predict(X)]),
    "pipeline": (
        make_pipeline(full_network(), ranker()),
        pictures,
        captions,
        lambda model, X: [model.predict(X), model.transform(X)],
    ),
    "annotation pipeline": (
        make_pipeline(full_network(), MultiLabelAnnotator(**SMALL)),
        pictures,
        labels,
        lambda model, X: [model.predict_proba(X)],
    ),
}


RESULTS = {"Comparison", "LabelIssues", "RetrievalRanks", "SearchResult"}  # hold what was computed


@pytest.mark.parametrize(
    "module", ["features", "retrieval", "annotation", "index", "metrics"], ids=lambda name: f"sklearn_mm.{name}"
)
def test_every_estimator_says_what_threads_may_do(module):
    public = importlib.import_module(f"sklearn_mm.{module}")
    classes = [value for name in public.__all__ if isinstance(value := getattr(public, name), type)]
    classes = [each for each in classes if each.__name__ not in RESULTS]
    assert classes
    for each in classes:
        assert "umber of threads may" in each.__doc__, each


def opened(estimator):
    """Return the estimator as another process opens it: nothing that is built on demand is there."""
    return pickle.loads(pickle.dumps(estimator))


def in_threads(call, arguments):
    """Return what `call` answers to each argument, from many threads that begin at once."""
    barrier = Barrier(N_THREADS)

    def work(number):
        barrier.wait(timeout=60)
        return [call(argument) for argument in arguments[number::N_THREADS]]

    with ThreadPoolExecutor(N_THREADS) as pool:
        parts = list(pool.map(work, range(N_THREADS)))
    return [parts[row % N_THREADS][row // N_THREADS] for row in range(len(arguments))]


def assert_same(answers, expected):
    assert len(answers) == len(expected)
    for row, (one, other) in enumerate(zip(answers, expected, strict=True)):
        for answer, wanted in zip(one, other, strict=True):
            np.testing.assert_array_equal(answer, wanted, err_msg=f"row {row}")


@pytest.mark.parametrize("name", ANSWERS)
def test_threads_get_the_answers_of_one(name):
    estimator, X, y, ask = ANSWERS[name]
    fitted = clone(estimator).fit(X(), *([] if y is None else [y()]))
    rows = [X()[row : row + 1] for row in range(len(X()))]
    serial = opened(fitted)
    expected = [ask(serial, row) for row in rows]
    shared = opened(fitted)
    assert_same(in_threads(lambda row: ask(shared, row), rows), expected)
    # and for good: nothing of the first calls is kept in the wrong place
    assert_same([ask(shared, row) for row in rows], expected)


@pytest.mark.parametrize("is_filled", [False, True])
def test_a_cache_holds_what_it_would_hold_without_threads(tmp_path, is_filled):
    fitted = full_network(batch_size=2, cache=tmp_path / "cache").fit(pictures()[:4])
    rows = [pictures()[[row, (5 * row) % N_PICTURES]] for row in range(N_PICTURES)]
    serial = opened(fitted).set_params(cache=None)
    expected = [[serial.transform(row)] for row in rows]
    shared = opened(fitted)
    if is_filled:
        shared.transform(pictures())
    assert_same(in_threads(lambda row: [shared.transform(row)], rows), expected)
    assert_same([[opened(fitted).transform(row)] for row in rows], expected)


def test_a_new_cache_may_be_opened_by_many_threads_at_once(tmp_path):
    fitted = full_network().fit(pictures())
    expected = [[fitted.transform(pictures())]] * N_THREADS
    caching = [opened(fitted).set_params(cache=tmp_path / "cache") for _ in range(N_THREADS)]
    assert_same(in_threads(lambda own: [own.transform(pictures())], caching), expected)


def test_estimators_that_share_a_module_do_not_meet_in_it():
    module = network()
    several = [full_network(module, activation=activation) for activation in ("pre", "post") * 4]
    expected = [[clone(each).fit_transform(pictures())] for each in several]
    assert_same(in_threads(lambda own: [own.fit_transform(pictures())], several), expected)
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize("make", [ExactIndex, FaissIndex])
def test_an_index_answers_threads_as_it_answers_one(make):
    if make is FaissIndex:
        pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    index = make().add(rng.normal(size=(500, 16)))
    queries = [rng.normal(size=(3, 16)) for _ in range(48)]
    expected = [index.search(query, 5) for query in queries]
    assert_same(in_threads(lambda query: index.search(query, 5), queries), expected)


def test_scorers_may_be_shared():
    model, annotator = ranker().fit(features(), captions()), MultiLabelAnnotator(**SMALL).fit(features(), labels())
    retrieval, annotation = RetrievalScorer(), AnnotationScorer()

    def score(start):
        part = slice(start, start + 8)
        both = (
            retrieval(model, features()[part], captions()[part]),
            annotation(annotator, features()[part], labels()[part]),
        )
        return [np.array(list(report.values())) if isinstance(report, dict) else np.array(report) for report in both]

    starts = list(range(8))
    assert_same(in_threads(score, starts), [score(start) for start in starts])


def test_a_model_that_trains_does_not_disturb_one_that_is_used():
    used = ranker(None, full_network()).fit(pictures(), captions())
    rows = [pictures()[row : row + 1] for row in range(N_PICTURES)]
    expected = [searching(used, row) for row in rows]

    def ask(row):
        if row is None:
            ranker(None, full_network(), n_jobs=1).fit(pictures(), captions())
            return []
        return searching(used, row)

    answers = in_threads(ask, [None, *rows[:7], None, *rows[7:]])
    assert_same([answer for answer in answers if answer], expected)


# Fits -----------------------------------------------------------------------------------------------------------

FITS = {
    "ranker": (ranker(dropout=0.5), features, captions, searching),
    "ranker, early stopping": (ranker(early_stopping=True, n_jobs=1), features, captions, searching),
    "ranker, random negatives": (
        ranker(loss=RankingLoss(negatives="random"), instance_loss=InstanceLoss(dropout=0.3, pretrain_epochs=1)),
        features,
        captions,
        searching,
    ),
    "ranker, temperature": (ranker(TextGRUEncoder(8), loss=InfoNCELoss(trainable=True)), features, captions, searching),
    "ranker, end to end": (ranker(TextNGramEncoder(8), scales(trainable=1)), pictures, captions, searching),
    "annotator": (MultiLabelAnnotator(**SMALL, label_count="predict"), features, labels, annotating),
    "text CNN": (TextCNNEncoder(8, width=0.01, word_dim=16, dropout=0.3, **SMALL), texts, texts, transforming),
    "picture network": (
        ImageCNNEncoder(network(), **READING, max_epochs=1, batch_size=8, n_components=6, dropout=0.3, random_state=0),
        pictures,
        texts,
        transforming,
    ),
    "random weights": (full_network("shufflenet_v2_x0_5", layers=6), pictures, None, transforming),
}


@pytest.mark.parametrize("name", FITS)
def test_fits_side_by_side_are_those_one_by_one(name):
    estimator, X, y, ask = FITS[name]

    def fitted(seed):
        own = clone(estimator)
        if "random_state" in own.get_params():
            own.set_params(random_state=seed)
        return ask(own.fit(X(), *([] if y is None else [y()])), X()[:6])

    seeds = [0, 0, 1, 0]
    expected = {seed: fitted(seed) for seed in set(seeds)}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(fitted, seeds))
    assert_same(answers, [expected[seed] for seed in seeds])


def test_partial_fits_side_by_side_are_those_one_by_one():
    def fitted(seed):
        model = ranker(random_state=seed)
        for part in (slice(0, 8), slice(8, 16), slice(0, 16)):
            model.partial_fit(features()[part], captions()[part])
        return [model.transform(features())]

    expected = {seed: fitted(seed) for seed in (0, 1)}
    with ThreadPoolExecutor(4) as pool:
        assert_same(list(pool.map(fitted, [0, 1, 0, 1])), [expected[seed] for seed in (0, 1, 0, 1)])


def assert_searched_alike(backend):
    """Search by workers of a backend, and without."""
    grid = {"n_components": [4, 8], "loss": ["infonce", "ranking"]}
    # max_epochs=2: a fit long enough to be in the way of another
    search = GridSearchCV(
        ranker(max_epochs=2), grid, cv=2, scoring=RetrievalScorer(), refit="rsum", error_score="raise"
    )
    expected = clone(search).fit(features(), captions())
    with joblib.parallel_config(backend, n_jobs=4):
        side_by_side = clone(search).fit(features(), captions())
    for name, scores in expected.cv_results_.items():
        if name.startswith(("split", "mean_test", "rank")):
            np.testing.assert_array_equal(side_by_side.cv_results_[name], scores)
    np.testing.assert_array_equal(side_by_side.transform(features()), expected.transform(features()))


def test_a_grid_search_gives_the_same_bits_in_threads_and_without():
    assert_searched_alike("threading")


@pytest.mark.slow
def test_a_grid_search_gives_the_same_bits_in_forked_processes_and_without(forked, tmp_path):
    # Forked from a process of its own: those of other tests hold locks of threads that the forked ones do not have.
    code = "from tests.integration.test_threads import assert_searched_alike as run; run('multiprocessing')"
    status, output = forked(code, tmp_path)
    assert status == [0], output


class Failing(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        raise LookupError("no features today")


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_fit_that_fails_leaves_the_states_of_the_process_alone(n_jobs):
    with pytest.raises(LookupError, match="today"):
        ranker(None, Failing(), n_jobs=n_jobs).fit(features(), captions())
    with pytest.raises(FloatingPointError, match="diverged"):
        ranker(learning_rate=1e30, clip_norm=1e30, max_epochs=9, n_jobs=n_jobs, optimizer="sgd").fit(
            features() * 1e3, captions()
        )


def test_fits_of_one_run_share_a_folder_of_checkpoints(tmp_path):
    def fitted(_):
        return [ranker(max_epochs=4, checkpoint=tmp_path).fit(features(), captions()).transform(features())]

    expected = ranker(max_epochs=4).fit(features(), captions()).transform(features())
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(fitted, range(8)))
    assert_same(answers, [[expected]] * 8)
    assert len(list(tmp_path.iterdir())) == 1
