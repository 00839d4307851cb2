"""Every public estimator keeps scikit-learn's contract: scikit-learn's own checks, then ours, then persistence."""

import importlib
import inspect
import tempfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import sklearn_mm
from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator, ZeroShotAnnotator
from sklearn_mm.features import (
    FullNetworkEmbedding,
    ImageCNNEncoder,
    LinearNystroem,
    MultiScaleCNNEncoder,
    PretrainedImageEncoder,
    PretrainedTextEncoder,
    TagVectorizer,
    TextCNNEncoder,
    TextGRUEncoder,
    TextNGramEncoder,
    TextSequenceEncoder,
)
from sklearn_mm.losses import RankingLoss
from sklearn_mm.persistence import load, save
from sklearn_mm.retrieval import CorrelationRanker, JointEmbeddingRanker, NearestNeighborNormalization, RankerEnsemble
from sklearn_mm.testing import image_estimator_checks, retrieval_estimator_checks, text_estimator_checks
from sklearn_mm.towers import TrainableEncoder
from tests.tiny_dual_models import write_clip
from tests.tiny_models import write_bert

# Quick settings. float32 throughout: the checks compare batches of different sizes to 1e-4.
NETWORK = FullNetworkEmbedding("squeezenet1_1", weights=None, image_size=32, layers=2, precision="float32")
ENCODER = ImageCNNEncoder(
    "squeezenet1_1", weights=None, image_size=32, n_components=8, max_epochs=1, batch_size=8, precision="float32"
)
SCALES = MultiScaleCNNEncoder(
    "shufflenet_v2_x0_5", weights=None, image_size=32, n_components=8, width=0.1, max_epochs=1, precision="float32"
)


RANKER = JointEmbeddingRanker(n_components=8, max_epochs=2, precision="float32")

_MODELS = tempfile.TemporaryDirectory()
# As paths travel.
BERT = str(write_bert(Path(_MODELS.name) / "bert", max_seq_length=32))
CLIP = str(write_clip(Path(_MODELS.name) / "clip"))

IMAGE_ESTIMATORS = [
    NETWORK,
    clone(NETWORK).set_params(discretize=False, layers="last"),
    ENCODER,
    SCALES,
    PretrainedImageEncoder(CLIP, precision="float32"),
    PretrainedImageEncoder(CLIP, trainable="lora", max_epochs=1, precision="float32"),
]
TEXT_ESTIMATORS = [
    TextNGramEncoder(n_components=8, word_dim=8, max_epochs=2),
    TextCNNEncoder(n_components=8, width=0.01, word_dim=8, max_epochs=2),
    TextGRUEncoder(n_components=8, word_dim=8, max_epochs=2),
    TextSequenceEncoder(n_components=8, phrase_dim=8, word_dim=8, max_epochs=2),
    PretrainedTextEncoder(BERT, precision="float32"),
    PretrainedTextEncoder(BERT, trainable="lora", max_epochs=1, precision="float32"),
]
RETRIEVAL_ESTIMATORS = [
    RANKER,
    clone(RANKER).set_params(
        text_encoder=TfidfVectorizer(token_pattern=r"(?u)\b\w+\b"),
        loss=RankingLoss(negatives="hardest"),
        hidden_layer_sizes=(8,),
    ),
    RankerEnsemble(
        [("words", RANKER), ("narrow", clone(RANKER).set_params(n_components=4)), ("off", "drop")], random_state=0
    ),
    CorrelationRanker(n_components=8),
    CorrelationRanker(TfidfVectorizer(token_pattern=r"(?u)\b\w+\b"), n_reduced=8, captions="mean", regularization=0.1),
]
ANNOTATION_ESTIMATORS = [
    MultiLabelAnnotator(hidden_layer_sizes=(32,), learning_rate=0.01, max_epochs=20, batch_size=64),
    MultiLabelAnnotator(
        hidden_layer_sizes=(),
        loss="softmax",
        label_count=LabelCountPredictor("regression"),
        learning_rate=0.03,
        max_epochs=20,
        batch_size=64,
    ),
    LabelCountPredictor(max_epochs=2),
]
TABLE_TRANSFORMERS = [NETWORK, FullNetworkEmbedding(discretize=False), LinearNystroem(8, random_state=0)]
TABLE_ESTIMATORS = [*TABLE_TRANSFORMERS, *RETRIEVAL_ESTIMATORS, *ANNOTATION_ESTIMATORS]
PROCESSES = "check_processes_agree"  # workers start slowly; once for pictures and once for rankers will do


def _checks(make_checks, estimators):
    for number, estimator in enumerate(estimators):
        for name, check in make_checks(estimator):
            if name != PROCESSES or (number == 0 and estimator not in TEXT_ESTIMATORS):
                yield pytest.param(check, id=f"{type(estimator).__name__}{number}-{name}")


def _public_estimators():
    for package in sklearn_mm._SUBPACKAGES:
        module = importlib.import_module(f"sklearn_mm.{package}")
        for name in module.__all__:
            thing = getattr(module, name)
            is_estimator = inspect.isclass(thing) and issubclass(thing, BaseEstimator) and hasattr(thing, "fit")
            if is_estimator and thing is not TrainableEncoder:  # by itself it has no network; tests/towers
                yield thing


def test_every_public_estimator_is_checked_here():
    checked = {type(estimator) for estimator in [*IMAGE_ESTIMATORS, *TEXT_ESTIMATORS, *TABLE_ESTIMATORS]} | {
        # Tests of their own: scikit-learn has no checks for such input.
        NearestNeighborNormalization,
        TagVectorizer,
        ZeroShotAnnotator,
    }
    assert checked == set(_public_estimators())


@parametrize_with_checks(TABLE_ESTIMATORS, xfail_strict=True)
def test_scikit_learns_checks_pass_on_tables(estimator, check):
    check(estimator)


@pytest.mark.parametrize("check", list(_checks(image_estimator_checks, IMAGE_ESTIMATORS)))
def test_our_checks_pass_on_pictures(check):
    check()


@pytest.mark.parametrize("check", list(_checks(text_estimator_checks, TEXT_ESTIMATORS)))
def test_our_checks_pass_on_texts(check):
    check()


@pytest.mark.parametrize("check", list(_checks(retrieval_estimator_checks, RETRIEVAL_ESTIMATORS)))
def test_our_checks_pass_on_images_with_captions(check):
    check()


def _example_of(estimator, shapes):
    """Return data for an estimator: X and y of `fit`, by what it takes."""
    captions = [own[0] for own in shapes.captions]
    if any(estimator is each for each in TEXT_ESTIMATORS):
        return captions, None
    if any(estimator is each for each in RETRIEVAL_ESTIMATORS):
        return shapes.images.reshape(len(shapes.images), -1)[:, ::97].astype(np.float32), shapes.captions
    return shapes.images, None


@pytest.mark.parametrize(
    "estimator",
    [
        *IMAGE_ESTIMATORS,
        *TEXT_ESTIMATORS,
        *RETRIEVAL_ESTIMATORS,
        make_pipeline(NETWORK, LinearNystroem(8, random_state=0), RANKER),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_saved_estimators_answer_to_the_bit_as_before(estimator, shapes, tmp_path):
    X, y = _example_of(estimator, shapes) if not hasattr(estimator, "steps") else (shapes.images, shapes.captions)
    fitted = clone(estimator).fit(X, y)
    save(fitted, tmp_path / "model")
    opened = load(tmp_path / "model")
    np.testing.assert_array_equal(opened.transform(X), fitted.transform(X))
    if hasattr(fitted, "search_texts"):
        np.testing.assert_array_equal(opened.search_texts(X, 3)[1], fitted.search_texts(X, 3)[1])
        assert opened.score(X, y) == fitted.score(X, y)
    before, after = (
        {name: repr(value) for name, value in each.get_params().items() if not isinstance(value, BaseEstimator)}
        for each in (fitted, opened)
    )
    assert after == before


@pytest.mark.parametrize("estimator", list(_public_estimators()), ids=lambda estimator: estimator.__name__)
def test_pickles_of_every_public_estimator_name_the_version_that_made_them(estimator):
    required = [name for name, own in inspect.signature(estimator).parameters.items() if own.default is own.empty]
    assert (
        estimator(**dict.fromkeys(required, "a model")).__getstate__()["_sklearn_mm_version"] == sklearn_mm.__version__
    )
