"""Pictures that cannot be read: never learnt from, never found, and no answer of another picture in their row."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator
from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.exceptions import ImageReadError, ImageReadWarning
from sklearn_mm.features import FullNetworkEmbedding, ImageCNNEncoder, MultiScaleCNNEncoder
from sklearn_mm.index import ExactIndex
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.retrieval import JointEmbeddingRanker

SIDE, N_IMAGES = 16, 24
BAD = (0, 7, 20)
GOOD = np.setdiff1d(np.arange(N_IMAGES), BAD)
PLAIN = {"crop_scale": None, "mirror": False}


class TinyNet(nn.Sequential):
    def __init__(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(
                *(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2), nn.ReLU()),
                *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)),
            )


SHAPES = make_captioned_shapes(N_IMAGES, image_size=SIDE, random_state=0)
IMAGES = list(SHAPES.images)
CAPTIONS = [list(own) for own in SHAPES.captions]
LABELS = SHAPES.target[:, SHAPES.target[GOOD].any(axis=0)]
GROUPS = np.arange(N_IMAGES) // 2
WEIGHTS = 1.0 + np.arange(N_IMAGES) % 3
# one that is no picture, one that is not there, and one whose header is all there is
BROKEN = [*IMAGES]
BROKEN[0], BROKEN[7], BROKEN[20] = b"no picture", "absent.png", np.full((SIDE, SIDE, 3), np.nan)


def some(rows, kept=GOOD):
    return [rows[row] for row in kept]


def frozen(**parameters):
    return FullNetworkEmbedding(TinyNet(), image_size=SIDE, **parameters)


def trained(make=ImageCNNEncoder, **parameters):
    return make(TinyNet(), image_size=SIDE, fix_batch_norm=False, max_epochs=1, **PLAIN, **parameters)


def ranker(encoder, inside):
    model = JointEmbeddingRanker(n_components=6, max_epochs=2, batch_size=8, random_state=0)
    return model.set_params(image_encoder=encoder) if inside else make_pipeline(encoder, model)


def annotator(encoder, inside, **parameters):
    model = MultiLabelAnnotator(
        hidden_layer_sizes=(8,), tag_hidden_layer_sizes=(4,), max_epochs=2, n_folds=None, random_state=0, **parameters
    )
    return model.set_params(image_encoder=encoder) if inside else make_pipeline(encoder, model)


def last(model):
    return model[-1] if hasattr(model, "steps") else model


ENCODERS = {
    "skip": (frozen(on_error="skip"), True),
    "nan": (frozen(on_error="nan"), True),
    "nan of floats": (frozen(on_error="nan", discretize=False), True),
    "skip before": (frozen(on_error="skip"), False),
    "nan before": (frozen(on_error="nan"), False),
    "nan of floats before": (frozen(on_error="nan", discretize=False), False),
    "behind another step": (make_pipeline(frozen(on_error="skip"), PCA(3, random_state=0)), True),
    "trained, skip": (trained(on_error="skip"), True),
    "trained, nan": (trained(on_error="nan", n_components=6), True),
}


@pytest.fixture(params=ENCODERS)
def encoder(request):
    made, inside = ENCODERS[request.param]
    return clone(made), inside


# Rankers --------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.ImageReadWarning")
def test_a_ranker_learns_from_the_other_pictures_alone_and_finds_no_bad_one(encoder):
    model, expected = ranker(*encoder), ranker(*encoder)
    name = "" if encoder[1] else "jointembeddingranker__"
    metadata = {f"{name}groups": GROUPS, f"{name}sample_weight": WEIGHTS}
    model.fit(BROKEN, CAPTIONS, **metadata)
    expected.fit(some(IMAGES), some(CAPTIONS), **{key: value[GOOD] for key, value in metadata.items()})
    np.testing.assert_array_equal(model.transform(IMAGES), expected.transform(IMAGES))
    np.testing.assert_array_equal(last(model).gallery_texts_, last(expected).gallery_texts_)
    texts = [own[0] for own in CAPTIONS]
    scores, rows = last(model).search_images(texts, k=len(GOOD), warn_unknown=False)
    expected_scores, expected_rows = last(expected).search_images(texts, k=len(GOOD), warn_unknown=False)
    np.testing.assert_array_equal(scores, expected_scores)
    np.testing.assert_array_equal(rows, GOOD[expected_rows])


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.ImageReadWarning")
@pytest.mark.parametrize(
    "ask", ["predict", "transform", "decision_function", "search_texts", "score", "scorer", "warm start"]
)
def test_a_ranker_never_answers_for_the_wrong_pictures(encoder, ask):
    model = ranker(*encoder).fit(some(IMAGES), some(CAPTIONS))
    if ask == "warm start":
        last(model).set_params(warm_start=True)
        model.fit(BROKEN, CAPTIONS)
        found = last(model).search_images(["a red circle"], k=len(GOOD))[1]
        assert sorted(found[0]) == GOOD.tolist()
        return
    calls = {
        "score": lambda: model.score(BROKEN, CAPTIONS),
        "scorer": lambda: RetrievalScorer()(model, BROKEN, CAPTIONS),
        "search_texts": lambda: (
            model.search_texts(BROKEN, k=2) if encoder[1] else model[-1].search_texts(model[0].transform(BROKEN), k=2)
        ),
    }
    with pytest.raises(ImageReadError, match="row 0 "):
        calls.get(ask, lambda: getattr(model, ask)(BROKEN))()


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.ImageReadWarning")
def test_pictures_put_into_a_gallery_keep_their_numbers_and_bad_ones_are_never_found(encoder):
    model = ranker(*encoder).fit(some(IMAGES), some(CAPTIONS))
    images = BROKEN if encoder[1] else model[0].transform(BROKEN)
    last(model).set_gallery(images=images)
    rows = last(model).search_images(["a red circle"], k=len(GOOD))[1]
    assert sorted(rows[0]) == GOOD.tolist()
    with pytest.raises(ValueError, match="k=22"):
        last(model).search_images(["a red circle"], k=len(GOOD) + 1)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(last(model))).search_images(["a red circle"], 5)[1], rows[:, :5]
    )


def test_a_picture_that_cannot_be_read_ends_a_fit_by_default():
    for model in (ranker(frozen(), True), ranker(frozen(), False), ranker(trained(), True)):
        with pytest.raises(ImageReadError, match="row 0 .*row 7 "):
            model.fit(BROKEN, CAPTIONS)


def test_an_encoder_that_gives_another_number_of_rows_is_an_error():
    class Halves(PCA):
        def transform(self, X):
            return super().transform(X)[::2]

    model = ranker(make_pipeline(frozen(), Halves(3)), True)
    with pytest.raises(ValueError, match="12 rows for 24"):
        model.fit(IMAGES, CAPTIONS).transform(IMAGES)


# Annotators -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.ImageReadWarning")
def test_an_annotator_learns_from_the_other_pictures_alone_and_answers_for_no_wrong_one(encoder):
    model, expected = annotator(*encoder), annotator(*encoder)
    name = "" if encoder[1] else "multilabelannotator__"
    metadata = {f"{name}groups": GROUPS, f"{name}sample_weight": WEIGHTS}
    model.fit(BROKEN, LABELS, **metadata)
    expected.fit(some(IMAGES), LABELS[GOOD], **{key: value[GOOD] for key, value in metadata.items()})
    np.testing.assert_array_equal(model.decision_function(IMAGES), expected.decision_function(IMAGES))
    for call in (model.predict, model.predict_proba, model.decision_function, lambda X: model.score(X, LABELS)):
        with pytest.raises(ImageReadError, match="row 0 "):
            call(BROKEN)


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.ImageReadWarning")
@pytest.mark.parametrize("kind", ["skip", "nan", "trained, skip"])
def test_tags_stay_beside_their_pictures(kind):
    encoder = clone(ENCODERS[kind][0])
    frame = pd.DataFrame({"image": BROKEN, "a": np.arange(N_IMAGES) % 2, "b": np.arange(N_IMAGES) % 3 == 0})
    whole = frame.assign(image=IMAGES)
    settings = {"tag_features": ["a", "b"]}
    model = annotator(encoder, True, **settings).fit(frame, LABELS)
    expected = annotator(encoder, True, **settings).fit(whole.iloc[GOOD], LABELS[GOOD])
    np.testing.assert_array_equal(model.decision_function(whole), expected.decision_function(whole))
    with pytest.raises(ImageReadError, match="row 0 "):
        model.predict(frame)


FRAME = pd.DataFrame({"image": BROKEN, "a": np.arange(N_IMAGES) % 2, "b": np.arange(N_IMAGES) % 3 == 0})


def beside(on_error, frames, tags):
    encoder = frozen(on_error=on_error)
    columns = ColumnTransformer([("image", encoder, "image"), *([("tags", "passthrough", ["a", "b"])] if tags else [])])
    return columns.set_output(transform="pandas" if frames else "default")


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.ImageReadWarning")
@pytest.mark.parametrize("on_error", ["skip", "nan"])
@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("tags", [False, True])
def test_no_answer_slides_behind_a_column_transformer(on_error, frames, tags):
    model = make_pipeline(
        beside(on_error, frames, tags),
        JointEmbeddingRanker(n_components=6, max_epochs=1, batch_size=8, random_state=0),
    )
    if frames or (tags and on_error == "skip"):  # what comes out cannot be marked, or not be put side by side
        with pytest.raises(ValueError, match="row 0 |rows: 0, 7, 20"):
            model.fit(FRAME, CAPTIONS)
    else:
        model.fit(FRAME, CAPTIONS)
        assert sorted(model[-1].search_images(["a red circle"], k=len(GOOD))[1][0]) == GOOD.tolist()
    model.fit(FRAME.iloc[GOOD], some(CAPTIONS))
    with pytest.raises(ValueError, match="row 0 |rows: 0, 7, 20"):
        model.predict(FRAME)


# Encoders and features ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ImageCNNEncoder, MultiScaleCNNEncoder])
@pytest.mark.parametrize("n_components", [4, None])
def test_bad_pictures_count_nowhere_in_the_training_of_an_encoder(make, n_components):
    if make is MultiScaleCNNEncoder:
        n_components = n_components or 5
    settings = {"n_components": n_components, "on_error": "skip", "trainable": "all", "random_state": 0}
    y = np.arange(N_IMAGES) // 2
    y[20] = 99  # an instance of one picture alone, which cannot be read
    with pytest.warns(ImageReadWarning, match="3 of 24"):
        encoder = trained(make, **settings).fit(BROKEN, y)
    assert [failure.row for failure in encoder.errors_] == list(BAD)
    expected = trained(make, **settings).fit(some(IMAGES), y[GOOD])
    np.testing.assert_array_equal(encoder.transform(IMAGES), expected.transform(IMAGES))


@pytest.mark.parametrize("on_error", ["skip", "nan"])
@pytest.mark.parametrize("travel", [pickle.dumps, None])
def test_features_say_which_pictures_are_missing_wherever_they_go(on_error, travel, tmp_path):
    with pytest.warns(ImageReadWarning, match="3 of 24"):
        features = frozen(on_error=on_error).fit_transform(BROKEN)
    if travel is not None:
        features = pickle.loads(travel(features))
    else:
        joblib.dump(features, tmp_path / "features")
        features = joblib.load(tmp_path / "features")
    for refuse in (
        lambda: LabelCountPredictor(max_epochs=1).fit(features, np.ones(len(features))),
        lambda: ExactIndex().add(features),
    ):
        with pytest.raises(ImageReadError, match="row 0 .*row 7 .*row 20 .*find_unreadable"):
            refuse()
    model = JointEmbeddingRanker(n_components=4, max_epochs=1, random_state=0).fit(features, CAPTIONS)
    assert sorted(model.search_images(["a red circle"], k=len(GOOD))[1][0]) == GOOD.tolist()
    ExactIndex().add(features[1:3])  # a part is of other rows


def test_features_of_pictures_that_can_all_be_read_are_a_plain_array():
    assert type(frozen(on_error="skip").fit_transform(IMAGES)) is np.ndarray
