"""Scores of rows that were trained on say so; those that are asked for on purpose do not."""

import io
import pickle
import warnings

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV, KFold, cross_validate, learning_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_mm import persistence
from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.exceptions import LeakWarning
from sklearn_mm.features import ImageCNNEncoder
from sklearn_mm.metrics import AnnotationScorer, RetrievalScorer
from sklearn_mm.retrieval import CorrelationRanker, JointEmbeddingRanker, RankerEnsemble
from sklearn_mm.towers import TrainedRows

N_TRAINED = 60


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeakWarning)
        yield


@pytest.fixture(scope="module")
def data():
    """90 rows of features, each with a sentence of its own."""
    rng = np.random.default_rng(0)
    X = rng.random((90, 24)).astype(np.float32)
    return X, [[f"thing {row} in place {row % 7}", f"the {row}th of them"] for row in range(90)]


def _ranker(**parameters):
    return CorrelationRanker(n_components=8, **parameters)


def _trained(model, data):
    X, y = data
    return model.fit(X[:N_TRAINED], y[:N_TRAINED])


@pytest.mark.parametrize(
    "model",
    [
        _ranker(),
        JointEmbeddingRanker(n_components=8, max_epochs=1),
        RankerEnsemble([("a", _ranker()), ("b", _ranker())]),
        make_pipeline(StandardScaler(), _ranker()),
    ],
    ids=["correlation", "joint", "ensemble", "pipeline"],
)
def test_rows_that_were_trained_on_are_named(model, data):
    X, y = data
    model = _trained(model, data)
    model.score(X[60:], y[60:])
    RetrievalScorer()(model, X[60:], y[60:])
    mixed = [*range(70, 90), 3, 5]
    for score in (model.score, lambda X, y: RetrievalScorer(metric="rsum")(model, X, y)):
        with pytest.warns(LeakWarning, match=r"^2 of 22 pictures \(rows 20, 21\) and 4 of 44 captions .* that are"):
            score(X[mixed], [y[row] for row in mixed])
        with pytest.warns(LeakWarning, match=r"60 of 60 pictures \(rows 0, 1, 2, 3, 4, ...\) and 120 of 120 captions"):
            score(X[:60], y[:60])


def test_captions_alone_are_named_if_they_do_not_come_twice_anyway(data):
    X, y = data
    ranker = _trained(_ranker(), data)
    with pytest.warns(LeakWarning, match="60 of 60 captions .of those trained on 0% come twice. that are scored"):
        ranker.score(X[60:], y[:30])
    common = [[f"a {'red' if row % 2 else 'blue'} thing"] for row in range(90)]
    _ranker().fit(X[:60], common[:60]).score(X[60:], common[60:])


def test_the_rounding_of_another_batch_makes_no_new_picture(data):
    X, y = data
    ranker = _trained(_ranker(), data)
    noise = 1 + 1e-7 * np.random.default_rng(1).standard_normal(X.shape)
    with pytest.warns(LeakWarning, match="60 of 60 pictures"):
        ranker.score((X * noise).astype(np.float32)[:60], y[30:])
    ranker.score((1.01 * X)[:30], y[60:])  # another picture


def test_training_scores_that_scikit_learn_asks_for_are_no_slip(data):
    X, y = data[0][:30], data[1][:30]
    options = {"scoring": RetrievalScorer(metric="rsum"), "cv": KFold(2), "error_score": "raise"}
    cross_validate(_ranker(), X, y, return_train_score=True, **options)
    learning_curve(_ranker(), X, y, train_sizes=[10], **options)
    search = GridSearchCV(_ranker(), {"n_components": [8]}, return_train_score=True, **options).fit(X, y)
    with pytest.warns(LeakWarning, match="30 of 30 pictures"):
        search.score(X, y)


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.MergedRowsWarning")  # which a careful reader gets too
def test_a_split_that_leaks_is_named_in_cross_validation_too(data):
    X, y = np.repeat(data[0][:20], 2, axis=0), [one for captions in data[1][:20] for one in captions]
    with pytest.warns(LeakWarning, match="pictures"):
        cross_validate(_ranker(), X, y, scoring=RetrievalScorer(metric="rsum"), cv=KFold(2, shuffle=True))


def test_annotators_say_so_too(data):
    X, _ = data
    Y = np.random.default_rng(0).random((90, 3)) < 0.4
    annotator = MultiLabelAnnotator(max_epochs=1, label_count=1, random_state=0).fit(X[:60], Y[:60])
    for score in (annotator.score, lambda X, Y: AnnotationScorer(metric="mAP")(annotator, X, Y)):
        score(X[60:], Y[60:])
        with pytest.warns(LeakWarning, match=r"10 of 40 pictures \(rows 0, 1, 2, 3, 4, ...\) that are scored"):
            score(X[50:], Y[50:])


def test_pictures_that_a_person_has_corrected_are_known_as_well(data):
    X, _ = data
    Y = np.random.default_rng(0).random((90, 3)) < 0.4
    annotator = MultiLabelAnnotator(max_epochs=1, label_count=1, random_state=0).fit(X[:60], Y[:60])
    annotator.partial_fit(X[60:65], Y[60:65])
    with pytest.warns(LeakWarning, match=r"15 of 40 pictures \(rows 0, 1, 2, 3, 4, ...\) that are scored"):
        annotator.score(X[50:], Y[50:])
    annotator.score(X[65:], Y[65:])


def test_tags_alone_are_no_pictures_that_could_be_known(data):
    tags, Y = np.random.default_rng(0).random((2, 90, 3)) < 0.4
    annotator = MultiLabelAnnotator(tag_features=slice(None), members=None, max_epochs=1, label_count=1)
    annotator.fit(tags[:60], Y[:60]).score(tags, Y)


def test_pictures_are_told_by_their_content_whatever_holds_them(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(12)]
    paths = [tmp_path / f"{row}.png" for row in range(12)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    captions = [f"picture {row}" for row in range(12)]
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    encoder = ImageCNNEncoder(nn.Sequential(*layers), image_size=16)
    ranker = JointEmbeddingRanker(image_encoder=encoder, n_components=4, max_epochs=1, batch_size=4)
    ranker.fit(paths[:8], captions[:8])
    ranker.score(paths[8:], captions[8:])
    (tmp_path / "elsewhere").mkdir()
    moved = [path.rename(tmp_path / "elsewhere" / f"renamed {path.name}") for path in paths[:2]]
    for held in (moved, [str(path) for path in moved], [path.read_bytes() for path in moved]):
        with pytest.warns(LeakWarning, match="2 of 6 pictures"):
            ranker.score([*held, *paths[8:]], captions[:2] + captions[8:])


def test_it_is_remembered_by_saved_models_and_by_partial_fit(data, tmp_path):
    X, y = data
    ranker = _ranker().partial_fit(X[:30], y[:30]).partial_fit(X[30:60], y[30:60])
    persistence.save(ranker, tmp_path / "model")
    for opened in (ranker, persistence.load(tmp_path / "model"), pickle.loads(pickle.dumps(ranker))):
        with pytest.warns(LeakWarning, match="60 of 90 pictures"):
            opened.score(X, y)
    ranker.fit(X[60:], y[60:])
    ranker.score(X[:60], y[:60])  # a fit forgets
    del ranker._trained_rows
    ranker.score(X[60:], y[60:])  # a model saved before it was noted says nothing


def test_rows_of_weight_0_are_not_trained_on(data):
    X, y = data
    ranker = _ranker().fit(X[:60], y[:60], sample_weight=np.repeat([1, 0], 30))
    ranker.score(X[30:60], y[30:60])


def test_what_is_kept_is_bounded_and_small(data):
    X = np.random.default_rng(0).random((70_000, 16), dtype=np.float32)
    rows = TrainedRows.of(X)
    assert (len(rows.images), rows.n_images) == (65_536, 70_000)
    file = io.BytesIO()
    joblib.dump(rows, file)
    assert file.tell() < 600_000
    both = rows.joined(TrainedRows.of(X + 1))
    assert (len(both.images), both.n_images) == (65_536, 140_000)
    with pytest.warns(LeakWarning, match=r"at least 4\d\d of 1000 pictures"):
        both.warn(X[:1000])


def test_frames_of_numbers_and_of_pictures_beside_tags_are_told_too():
    pandas = pytest.importorskip("pandas")
    X = np.random.default_rng(0).integers(0, 9, (40, 20))
    plain = TrainedRows.of(X)
    frame = pandas.DataFrame(X)
    for held in (frame, frame.astype("Int64"), X.tolist(), X.astype(np.int8)):
        assert np.array_equal(TrainedRows.of(held).images, plain.images)
    beside = pandas.DataFrame({"path": [f"{row}.jpg" for row in range(40)], "tag": [0, 1] * 20})
    trained = TrainedRows.of(beside[:30])
    assert trained.n_images == 30
    trained.warn(beside[30:])
    with pytest.warns(LeakWarning, match="10 of 20 pictures"):
        trained.warn(beside[20:])


def test_what_no_model_takes_is_left_to_the_model_to_refuse(data, tmp_path):
    X, y = data
    ranker = _trained(_ranker(), data)
    broken = X[60:].copy()
    broken[0, 0], broken[1, 1] = np.nan, np.inf
    with pytest.raises(ValueError, match="NaN, infinity"):
        ranker.score(broken, y[60:])
    TrainedRows.of([tmp_path, tmp_path / "no such file.jpg", "a\0b", "x" * 5000]).warn(["y.jpg"])
    assert TrainedRows.of(iter([1])).n_images == 0
