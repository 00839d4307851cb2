"""A row a caption is a row a picture, in fit, galleries and scorers, and each picture is read once."""

import pickle
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.exceptions import ImageReadWarning, MergedRowsWarning
from sklearn_mm.features import FullNetworkEmbedding, ImageCNNEncoder
from sklearn_mm.images import PictureReader
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.model_selection import explode_captions
from sklearn_mm.retrieval import CorrelationRanker, JointEmbeddingRanker, RankerEnsemble

SMALL = {"n_components": 8, "max_epochs": 1, "random_state": 0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return paths of sixteen pictures, and two captions each."""
    folder = tmp_path_factory.mktemp("pictures")
    shapes = make_captioned_shapes(16, image_size=32, captions_per_image=2, random_state=0)
    paths = [str(folder / f"{row}.png") for row in range(16)]
    for path, picture in zip(paths, shapes.images, strict=True):
        Image.fromarray(picture).save(path)
    return paths, [list(own) for own in shapes.captions]


def pairs_of(files):
    """Return the pair form, so that captions of one picture do not stand together."""
    X, y, _ = explode_captions(*files)
    order = np.random.default_rng(0).permutation(len(X))
    return [X[row] for row in order], [y[row] for row in order]


def embedding(**options):
    return FullNetworkEmbedding(
        "squeezenet1_1", weights=None, image_size=32, layers="last", discretize=False, **options
    )


def merged(n_rows=32, n_pictures=16):
    return pytest.warns(MergedRowsWarning, match=f"{n_rows} rows are {n_pictures} pictures")


@pytest.fixture
def read(monkeypatch):
    """Return the list of what is decoded."""
    seen, decode = [], PictureReader.decode
    monkeypatch.setattr(PictureReader, "decode", lambda self, source: (seen.append(source), decode(self, source))[1])
    return seen


RANKERS = {
    "trained": lambda: JointEmbeddingRanker(**SMALL),
    "solved": lambda: CorrelationRanker(n_components=4, regularization=1.0, random_state=0),
    "several": lambda: RankerEnsemble(CorrelationRanker(n_components=4, regularization=1.0), random_state=0),
}


@pytest.mark.parametrize("make", RANKERS.values(), ids=RANKERS)
def test_a_row_a_caption_gives_the_model_of_a_row_a_picture(files, read, make):
    X, y = pairs_of(files)
    with merged():
        model = make_pipeline(embedding(), make()).fit(X, y)
    assert sorted(read) == sorted(files[0])  # each picture once
    first = [X.index(path) for path in dict.fromkeys(X)]
    captions = [[text for name, text in zip(X, y, strict=True) if name == X[row]] for row in first]
    grouped = make_pipeline(embedding(), make()).fit([X[row] for row in first], captions)
    query = files[1][3][:1]
    scores, rows = model[-1].search_images(query, k=16)
    expected_scores, places = grouped[-1].search_images(query, k=16)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-5)
    assert rows.tolist() == [[first[place] for place in places[0]]]  # rows of X, each picture once


def test_scorers_read_each_picture_once_and_score_as_if_captions_were_grouped(files, read):
    model = make_pipeline(embedding(), RANKERS["solved"]()).fit(*files)
    grouped = RetrievalScorer()(model, *files)
    X, y = pairs_of(files)
    read.clear()
    with merged():
        report = RetrievalScorer()(model, X, y)
    assert sorted(read) == sorted(files[0])
    assert (report["n_images"], report["n_texts"]) == (16, 32)
    assert report["rsum"] == pytest.approx(grouped["rsum"])
    with merged():
        assert model.score(X, y) == pytest.approx(model.score(*files))
    with merged():
        weighted = RetrievalScorer()(model, X, y, sample_weight=np.ones(32))
    assert weighted["rsum"] == pytest.approx(grouped["rsum"])


def test_a_picture_of_two_groups_is_two_images_in_a_scorer_as_in_training(files):
    model = make_pipeline(embedding(), RANKERS["solved"]()).fit(*files)
    X, y, rows = explode_captions(*files)
    apart = RetrievalScorer()(model, X, y, groups=np.arange(32))
    assert apart["n_images"] == 32
    with merged():
        assert RetrievalScorer()(model, X, y, groups=rows)["n_images"] == 16


@pytest.mark.parametrize("make", RANKERS.values(), ids=RANKERS)
def test_a_gallery_holds_a_picture_once(files, make):
    model = make_pipeline(embedding(), make()).fit(*files)
    features = model[:-1].transform([files[0][2], files[0][5], files[0][2], files[0][7]])
    with merged(4, 3):
        model[-1].set_gallery(images=features)
    assert sorted(model[-1].search_images(["a red star"])[1][0]) == [0, 1, 3]


def test_a_ranker_with_an_image_encoder_of_its_own_reads_each_picture_once(files, read):
    X, y = pairs_of(files)
    encoder = ImageCNNEncoder("squeezenet1_1", weights=None, image_size=32, trainable="none")
    with merged():
        ranker = JointEmbeddingRanker(image_encoder=encoder, **SMALL).fit(X, y)
    assert len(set(ranker.search_images(["a star"], k=16)[1][0])) == 16
    read.clear()
    with merged(3, 2):
        ranker.set_gallery(images=[files[0][0], files[0][1], files[0][0]])
    assert sorted(read) == sorted(files[0][:2])
    assert sorted(ranker.search_images(["a star"])[1][0]) == [0, 1]


def test_pictures_in_memory_are_one_where_they_are_one_object(files):
    pictures = [Image.open(path) for path in files[0]]
    X, y, _ = explode_captions(pictures, files[1])
    with merged():
        make_pipeline(embedding(), RANKERS["solved"]()).fit(X, y)


def test_equal_features_with_a_caption_each_are_one_picture_in_fit_but_not_in_a_scorer(files):
    features = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    X, y, _ = explode_captions(features, files[1])
    with merged():
        ranker = RANKERS["solved"]().fit(X, y)
    assert sorted(ranker.search_images(["a star"], k=16)[1][0]) == list(range(0, 32, 2))
    assert RetrievalScorer()(ranker, X, y)["n_images"] == 32
    # rows of features that have several captions are pictures, though some are equal
    nested = RANKERS["solved"]().fit(np.repeat(features, 2, axis=0), [own for own in files[1] for _ in range(2)])
    assert len(set(nested.search_images(["a star"], k=32)[1][0])) == 32


def test_a_model_to_which_all_pictures_are_alike_scores_as_chance_in_the_pair_form(files):
    alike = make_pipeline(FunctionTransformer(lambda paths: np.zeros((len(paths), 3))), StandardScaler())
    X, y, _ = explode_captions(*files)

    class Alike:
        def transform(self, X):
            return alike.fit_transform(X) + 1

        def transform_text(self, texts):
            return np.ones((len(texts), 3))

    with merged():
        report = RetrievalScorer(k=4)(Alike(), X, y)
    assert report["t2i_hit@4"] == pytest.approx(4 / 16)


def test_statistics_of_an_embedding_are_of_pictures_and_rows_come_out_as_they_went_in(files):
    X = [*files[0], *files[0][:5], files[0][0]]
    twice, once = embedding(), embedding()
    out, expected = twice.fit_transform(X), once.fit_transform(files[0])
    np.testing.assert_array_equal(out, expected[[*range(16), *range(5), 0]])
    assert twice.n_samples_seen_ == 16
    np.testing.assert_array_equal(twice.transform(X), out)
    np.testing.assert_array_equal(twice.fit(X).mean_, once.mean_)
    copied = pickle.loads(pickle.dumps(out))
    assert copied.first_rows.tolist() == [*range(16), *range(5), 0]
    assert type(once.transform(files[0])) is np.ndarray


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("on_error", ["skip", "nan"])
def test_broken_pictures_are_left_out_of_the_pair_form_with_all_of_their_rows(files, tmp_path, on_error, cache):
    X, y = pairs_of(files)
    X = [str(tmp_path / "none.png") if path == files[0][3] else path for path in X]
    gone = [row for row, path in enumerate(X) if path.endswith("none.png")]
    features = embedding(on_error=on_error, cache=tmp_path / "cache" if cache else None)
    with pytest.warns(ImageReadWarning, match=f"2 of 32 pictures .* row {gone[0]} "), merged():
        model = make_pipeline(features, RANKERS["solved"]()).fit(X, y)
    assert [failure.row for failure in features.errors_] == gone
    found = model[-1].search_images(["a star"], k=15)[1][0]
    assert len({X[row] for row in found}) == 15
    assert not set(found) & set(gone)
    with pytest.raises(ValueError, match=re.escape(f"row {gone[0]} (")):
        embedding().fit(X)
    encoder = ImageCNNEncoder("squeezenet1_1", weights=None, image_size=32, trainable="none", on_error=on_error)
    with pytest.warns(ImageReadWarning):
        out = encoder.fit(files[0]).transform(X)
    assert [failure.row for failure in encoder.errors_] == gone
    assert len(out) == (30 if on_error == "skip" else 32)
