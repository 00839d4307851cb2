import numpy as np
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator, make_annotation_pipeline
from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import FullNetworkEmbedding, ImageCNNEncoder, MultiScaleCNNEncoder
from sklearn_mm.metrics import AnnotationScorer, annotation_report
from sklearn_mm.persistence import load, save
from sklearn_mm.towers import TrainableEncoder

FAST = {
    "hidden_layer_sizes": (32,),
    "tag_hidden_layer_sizes": (32, 16),
    "batch_size": 100,
    "random_state": 0,
    "learning_rate": 1e-2,
    "max_epochs": 12,
    "n_folds": None,
    "members": None,
}
EMBEDDING = FullNetworkEmbedding("squeezenet1_1", weights=None, image_size=32, layers=2, precision="float32")


@pytest.fixture(scope="module")
def data():
    """Eight labels: features tell the first four, and tags, given by chance, the others."""
    rng = np.random.default_rng(0)
    truth = (rng.random((600, 8)) < 0.3).astype(np.int64)
    features = truth[:, :4] + rng.normal(0, 0.3, (600, 4))
    tags = np.concatenate([truth[:, 4:], rng.random((600, 6)) < 0.1], axis=1) * (rng.random((600, 10)) < 0.8)
    return np.concatenate([features, tags], axis=1).astype(np.float32), truth


def test_tags_help_beside_features(data):
    X, truth = data
    train, test = slice(0, 400), slice(400, 600)
    both = MultiLabelAnnotator(**FAST, tag_features=slice(4, None)).fit(X[train], truth[train])
    plain = MultiLabelAnnotator(**FAST).fit(X[train, :4], truth[train])
    alone = MultiLabelAnnotator(**FAST, tag_features=slice(None)).fit(X[train, 4:], truth[train])
    score = both.score(X[test], truth[test])
    assert score > plain.score(X[test, :4], truth[test]) + 0.1
    assert score > alone.score(X[test, 4:], truth[test]) + 0.1
    assert both.is_tag_.tolist() == [False] * 4 + [True] * 10
    assert alone.network_.visual is None


@pytest.mark.slow
def test_every_way_to_name_tags_is_the_same(data):
    pandas = pytest.importorskip("pandas")
    X, truth = data
    expected = MultiLabelAnnotator(**FAST, tag_features=slice(4, None)).fit(X, truth).decision_function(X)
    frame = pandas.DataFrame(X, columns=[*"abcd", *(f"tag_{number}" for number in range(10))])
    for given, tag_features in (
        (X, np.arange(14) >= 4),
        (X, list(range(4, 14))),
        (frame, [f"tag_{number}" for number in range(10)]),
        (frame, "tag_.*"),
    ):
        annotator = MultiLabelAnnotator(**FAST, tag_features=tag_features).fit(given, truth)
        np.testing.assert_array_equal(annotator.decision_function(given), expected)


def test_tags_between_features_are_found(data):
    X, truth = data
    order = np.random.default_rng(0).permutation(14)
    is_tag = order >= 4
    annotator = MultiLabelAnnotator(**FAST, tag_features=is_tag).fit(X[:, order], truth)
    assert annotator.score(X[:, order], truth) > 0.8


def test_sparse_columns_stay_sparse_and_answer_as_dense_ones(data, monkeypatch):
    X, truth = data
    few = sparse.csr_matrix(X)
    annotator = MultiLabelAnnotator(**FAST, tag_features=slice(4, None)).fit(few, truth)
    np.testing.assert_allclose(annotator.predict_proba(few), annotator.predict_proba(X), rtol=1e-4, atol=1e-6)
    wide = sparse.hstack([few[:, 4:], sparse.csr_matrix((600, 200_000))]).tocsr()

    def refuse(self, *args, **kwargs):
        assert self.shape[1] < 200_000, "tags were made dense"
        return toarray(self, *args, **kwargs)

    toarray = sparse.csr_array.toarray
    monkeypatch.setattr(sparse.csr_array, "toarray", refuse)
    monkeypatch.setattr(sparse.csr_matrix, "toarray", refuse)
    alone = MultiLabelAnnotator(**{**FAST, "max_epochs": 2, "tag_hidden_layer_sizes": (4,)}, tag_features=slice(None))
    assert alone.fit(wide, truth).predict(wide).shape == truth.shape


@pytest.mark.parametrize(
    ("tag_features", "error", "message"),
    [
        ([3, 14], ValueError, "column 14, but X has columns 0 to 13"),
        ([-1], ValueError, "column -1"),
        ([True] * 3, ValueError, "mask of 3 columns, but X has 14"),
        (slice(20, None), ValueError, "no column of the 14"),
        (["a"], TypeError, "X has no column names"),
        ("tag.*", TypeError, "X has no column names"),
        ([], TypeError, "at least one column"),
    ],
    ids=str,
)
def test_tag_columns_that_do_not_exist_are_named(data, tag_features, error, message):
    with pytest.raises(error, match=message):
        MultiLabelAnnotator(**FAST, tag_features=tag_features).fit(*data)


@pytest.mark.parametrize(
    ("tag_features", "message"),
    [
        (["tag_99"], "column 'tag_99', which X does not have; did you mean"),
        ("tog_.*", "matches no column of X"),
        ("(", "no regular"),
    ],
    ids=str,
)
def test_tag_names_that_do_not_exist_are_named(data, tag_features, message):
    X, truth = data
    frame = pytest.importorskip("pandas").DataFrame(X, columns=[f"tag_{number}" for number in range(14)])
    with pytest.raises(ValueError, match=message):
        MultiLabelAnnotator(**FAST, tag_features=tag_features).fit(frame, truth)


PICTURES = {**FAST, "dropout": 0.1, "max_epochs": 40}


# Pictures -------------------------------------------------------------------------------------------------------


class Shrunken(TrainableEncoder):
    """A trainable encoder: pictures made small, and one linear layer."""

    def __init__(self, n_components=24):
        self.n_components = n_components

    def initialize(self, data, random_state=None):
        self.module_ = Linear(8 * 8 * 3, self.n_components)
        return self

    def fit(self, X, y=None):
        raise AssertionError("a trainable encoder is trained with the annotator")

    transform = fit

    def prepare(self, data):
        return np.stack([np.asarray(picture)[::4, ::4] for picture in data]).reshape(len(data), -1)

    def collate(self, rows, rng=None):
        return torch.from_numpy(rows).float() / 255


class Linear(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.config = {"n_in": n_in, "n_out": n_out}
        self.linear = nn.Linear(n_in, n_out)

    def forward(self, pixels):
        return self.linear(pixels)


@pytest.fixture(scope="module")
def frame():
    pandas = pytest.importorskip("pandas")
    shapes = make_captioned_shapes(200, image_size=32, random_state=0)
    rng = np.random.default_rng(0)
    tags = [[label for label in row if rng.random() < 0.5] for row in _labels(shapes)]
    return pandas.DataFrame({"image": list(shapes.images), "tags": tags}), shapes.target, shapes


def _labels(shapes):
    return [np.asarray(shapes.label_names)[row > 0].tolist() for row in shapes.target]


def test_pictures_are_embedded_by_a_frozen_encoder(frame):
    _, target, shapes = frame
    annotator = MultiLabelAnnotator(EMBEDDING, **PICTURES).fit(shapes.images, target)
    assert annotation_report(target, annotator.decision_function(shapes.images), 3)["mAP"] > 0.5
    assert not hasattr(EMBEDDING, "mean_")
    np.testing.assert_array_equal(annotator.predict(list(shapes.images)), annotator.predict(shapes.images))


def test_a_trainable_encoder_is_trained_with_the_labels(frame):
    _, target, shapes = frame
    encoder = Shrunken()
    annotator = MultiLabelAnnotator(encoder, **{**PICTURES, "max_epochs": 80}).fit(list(shapes.images), target)
    assert not hasattr(encoder, "module_")
    assert annotation_report(target, annotator.decision_function(list(shapes.images)), 3)["mAP"] > 0.5
    assert annotator.image_encoder_.module_.linear.weight.grad is not None


TINY = {
    "weights": None,
    "image_size": 32,
    "n_components": 16,
    "precision": "float32",
    "batch_size": 16,
    "mirror": False,
}
ENCODERS = [
    MultiScaleCNNEncoder("shufflenet_v2_x0_5", **TINY, width=0.1),
    MultiScaleCNNEncoder("shufflenet_v2_x0_5", **TINY, width=0.1, trainable="all", backbone_learning_rate=1.0),
    ImageCNNEncoder("squeezenet1_1", **TINY, trainable=1),
]


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS, ids=["frozen backbone", "end to end", "one scale"])
def test_encoders_of_raw_pictures_are_trained_with_the_labels(frame, encoder):
    _, target, shapes = frame
    settings = {**PICTURES, "max_epochs": 5, "label_count": LabelCountPredictor(joint=True)}
    annotator = MultiLabelAnnotator(encoder, **settings).fit(shapes.images, target)
    assert annotator.history_[-1]["train_loss"] < annotator.history_[0]["train_loss"] - 0.1
    assert annotator.predict(shapes.images).shape == target.shape
    start = clone(encoder).initialize(shapes.images, 0).module_
    for part in ("backbone", "fusion"):
        if not hasattr(start, part):
            continue
        before, after = (
            dict(getattr(each, part).named_parameters()) for each in (start, annotator.image_encoder_.module_)
        )
        learnt = [name for name, value in after.items() if not torch.equal(value, before[name])]
        assert bool(learnt) == (part == "fusion" or encoder.trainable != "none"), part
    again = clone(annotator).fit(list(shapes.images), target)
    np.testing.assert_array_equal(again.predict_proba(shapes.images), annotator.predict_proba(shapes.images))


def test_pictures_go_through_their_encoder_as_many_at_once_as_it_says(frame, monkeypatch):
    _, target, shapes = frame
    annotator = MultiLabelAnnotator(ENCODERS[0], **{**PICTURES, "max_epochs": 1}).fit(shapes.images, target)
    sizes = []
    hook = annotator.image_encoder_.module_.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    annotator.predict(shapes.images)
    hook.remove()
    assert sizes == [16] * 12 + [8]


def test_a_trainable_encoder_and_tags_take_a_frame(frame):
    pandas = pytest.importorskip("pandas")
    table, target, shapes = frame
    marks = pandas.DataFrame(target * (np.random.default_rng(0).random(target.shape) < 0.5), columns=shapes.label_names)
    both = pandas.concat([table[["image"]], marks.add_prefix("tag ")], axis=1)
    annotator = MultiLabelAnnotator(Shrunken(), **PICTURES, tag_features="tag .*").fit(both, target)
    plain = MultiLabelAnnotator(Shrunken(), **PICTURES).fit(table["image"], target)
    assert annotator.score(both, target) > plain.score(table["image"], target) + 0.05
    with pytest.raises(TypeError, match="expected a DataFrame of a column of pictures"):
        annotator.predict(list(shapes.images))
    with pytest.raises(ValueError, match="one column of pictures beside the tags, got 2: 'image', 'other'"):
        MultiLabelAnnotator(Shrunken(), **PICTURES, tag_features="tag .*").fit(both.assign(other=0), target)


def test_a_column_transformer_before_it_works_on_a_frame(frame):
    table, target, _ = frame
    columns = ColumnTransformer(
        [("image", EMBEDDING, "image"), ("tags", CountVectorizer(analyzer=list, dtype=np.int8), "tags")]
    )
    n_visual = EMBEDDING.fit_transform(table["image"]).shape[1]
    pipe = make_pipeline(columns, MultiLabelAnnotator(**PICTURES, tag_features=slice(n_visual, None)))
    assert pipe.fit(table, target).score(table, target) > 0.6
    assert np.isfinite(cross_val_score(pipe, table, target, cv=2, error_score="raise")).all()


@pytest.mark.slow
def test_the_pipeline_made_in_one_call_learns_is_searched_and_saved(frame, tmp_path):
    table, target, _ = frame
    pipe = make_annotation_pipeline(MultiLabelAnnotator(**PICTURES), image_encoder=EMBEDDING).fit(table, target)
    assert pipe.score(table, target) > 0.6
    assert pipe[-1].is_tag_.sum() == len(pipe[0].named_transformers_["tags"].tags_)
    save(pipe, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(table), pipe.predict(table))
    grid = {"columns__tags__max_features": [2, 20]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(table, target)
    assert search.best_params_["columns__tags__max_features"] == 20


@pytest.mark.parametrize("encoder", [EMBEDDING, ENCODERS[0]], ids=["frozen", "trained"])
@pytest.mark.parametrize("kind", ["paths", "PIL"])
def test_the_pipeline_reads_paths_and_pil_images_in_a_frame(frame, kind, encoder, tmp_path):
    table, target, shapes = frame
    images = [Image.fromarray(pixels) for pixels in shapes.images]
    if kind == "paths":
        for row, image in enumerate(images):
            image.save(tmp_path / f"{row}.png")
        images = [str(tmp_path / f"{row}.png") for row in range(len(images))]
    settings = {**PICTURES, "max_epochs": 2}
    pipe = make_annotation_pipeline(MultiLabelAnnotator(**settings), image_encoder=encoder)
    given = table.assign(image=images)
    answer = pipe.fit(given, _labels(shapes)).predict_proba(given)
    expected = clone(pipe).fit(table, _labels(shapes)).predict_proba(table)
    np.testing.assert_array_equal(answer, expected)
    assert isinstance(pipe.predict(given)[0], list)
    assert AnnotationScorer()(pipe, given, _labels(shapes))["mAP"] > target.mean()


def test_pictures_alone_need_no_frame_and_pictures_with_tags_are_told_to_come_in_one(frame, tmp_path):
    table, target = frame[0][:30], frame[1][:30]
    annotator = MultiLabelAnnotator(**{**PICTURES, "max_epochs": 1, "random_state": 0})
    pipe = make_annotation_pipeline(annotator, image_encoder=EMBEDDING, tags=None)
    expected = pipe.fit(table, target).predict_proba(table)
    save(pipe, tmp_path / "model")
    pictures = list(table["image"])
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(np.stack(pictures)), expected)
    assert clone(pipe).fit(pictures, target)["columns"].feature_names_in_.tolist() == ["image"]
    with_tags = make_annotation_pipeline(annotator, image_encoder=EMBEDDING)
    with pytest.raises(
        TypeError, match=r"the columns 'image' and 'tags', got a list; pass pandas.DataFrame\(\{'image'"
    ):
        with_tags.fit(pictures, target)


def test_the_pipeline_gives_a_trainable_encoder_to_the_annotator(frame):
    table, target, _ = frame
    pipe = make_annotation_pipeline(MultiLabelAnnotator(**PICTURES), image_encoder=Shrunken()).fit(table, target)
    assert isinstance(pipe[-1].image_encoder_, Shrunken)
    assert pipe.score(table, target) > 0.5
    plain = make_annotation_pipeline(MultiLabelAnnotator(**PICTURES), image_encoder=Shrunken(), tags=None)
    assert plain.fit(table, target).predict(table).shape == target.shape


@pytest.mark.parametrize(
    "parameters", [{"label_count": 99}, {"class_weight": {"zebra": 2.0}}, {"hidden_layer_sizes": (0,)}], ids=str
)
def test_what_cannot_be_asked_for_is_refused_before_pictures_are_read(frame, parameters):
    _, target, shapes = frame
    with pytest.raises(ValueError, match=f"{next(iter(parameters))}.*(more than|not there|must hold)"):
        MultiLabelAnnotator(Shrunken(), **{**PICTURES, **parameters}).fit(["nowhere.png"] * len(target), target)
    with pytest.raises(ValueError, match="n_folds=3 goes neither with .* an encoder that is trained"):
        MultiLabelAnnotator(Shrunken(), **{**PICTURES, "n_folds": 3}).fit(shapes.images, target)


class Forgetful(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.zeros((len(X) - 1, 2))


def test_an_encoder_that_skips_pictures_is_found_out(frame):
    _, target, shapes = frame
    with pytest.raises(ValueError, match="got 199 rows for 200"):
        MultiLabelAnnotator(Forgetful(), **PICTURES).fit(shapes.images, target)
    encoder = FunctionTransformer(lambda images: images.reshape(len(images), -1)[:, ::50].astype(float))
    assert MultiLabelAnnotator(encoder, **PICTURES).fit(shapes.images, target).score(shapes.images, target) > 0.35
