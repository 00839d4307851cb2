"""What a gallery may be asked by."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.base import clone

from sklearn_mm.exceptions import ImageReadError, UnknownWordsWarning
from sklearn_mm.images import PictureReader
from sklearn_mm.losses import order_scores
from sklearn_mm.retrieval import Gallery
from sklearn_mm.retrieval.gallery._vectors import Vectors


@pytest.fixture
def seen(word_ranker, tmp_path):
    """A gallery of three pictures in files, over a ranker that sees their colours."""

    class Colours(type(word_ranker)):
        def transform(self, X):
            reader = PictureReader(image_size=4, resize_size=4)
            colours = np.array([reader.read(picture)[0].reshape(-1, 3).mean(axis=0) for picture in X])
            return np.column_stack([colours, np.full((len(colours), 3), 1.0)]).astype(np.float32)

    paths = []
    for name, colour in (("red", (255, 0, 0)), ("green", (0, 255, 0)), ("blue", (0, 0, 255))):
        paths.append(tmp_path / f"{name}.png")
        Image.new("RGB", (8, 8), colour).save(paths[-1])
    return Gallery(Colours().fit(None)).add(paths), paths


def test_a_picture_is_asked_by_in_any_form(seen):
    gallery, paths = seen
    green = paths[1]
    picture = Image.open(green).convert("RGB")
    for query in (green, str(green), green.read_bytes(), picture, np.asarray(picture), {"image": green}):
        found = gallery.search(query, k=1)
        assert found.ids == [str(green)]
        assert found.scores[0] == pytest.approx(1)
    several = gallery.search([green, "blue", picture, str(paths[0])], k=1)
    assert several.ids == [str(paths[row]) for row in (1, 2, 1, 0)]
    assert several.queries == [str(green), "blue", "query 2", str(paths[0])]
    assert gallery.search(np.stack([np.asarray(picture)] * 2), k=1).ids == [str(green)] * 2
    assert gallery.search(pd.Series(["red", "blue"]), k=1).ids == [str(paths[0]), str(paths[2])]


def test_features_are_asked_by_one_row_or_several(toys):
    row = np.array([0, 1, 0, 0, 0, 1.0])
    assert toys.search(row, k=1).ids == ["green-star"]
    assert not toys.search(row, k=1).several
    for rows in (np.stack([row] * 2), [row, row], pd.DataFrame([row, row])):
        found = toys.search(rows, k=1)
        assert found.ids == ["green-star"] * 2
        assert found.queries == ["query 0", "query 1"]


def test_a_sparse_matrix_is_several_rows(fitted):
    ranker, features, _ = fitted
    gallery = Gallery(ranker).add(features, ids=range(96))
    assert gallery.search(sparse.csr_array(features[:2]), k=1).ids == [0, 1]


def test_a_mixture_keeps_what_it_likes_and_leaves_out_what_it_does_not(toys):
    red_dot = np.eye(6)[0] + np.eye(6)[3]
    assert toys.search({"image": red_dot, "text": "green"}, k=2).ids[0] in ("green-dot", "red-dot")
    assert toys.search({"image": red_dot, "text": ("green", 2), "minus": "red"}, k=1).ids == ["green-dot"]
    assert toys.search({"text": ["green", "star"]}, k=1).ids == ["green-star"]
    assert toys.search({"text": [("green", 0.2), ("red", 3.0), "star"]}, k=1).ids == ["red-star"]
    assert toys.search({"text": "green", "minus": ["dot", ("star", 1)]}, k=1).ids == ["green-box"]
    assert toys.search({"text": "green", "minus": red_dot}, k=9).ids[-1] == "red-dot"
    assert toys.search([{"text": "green", "minus": "dot"}], k=1).queries == ["green - dot"]


def test_what_is_named_like_a_picture_and_is_none_is_told(toys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file 'cat.jpg' in .*of a sentence that ends like the name"):
        toys.search("cat.jpg")
    with pytest.raises(FileNotFoundError, match="in query 1, and there is no file 'cat.PNG'"):
        toys.search(["a dot", "cat.PNG"])
    assert toys.search({"text": "red, as in dot.jpg"}, k=1).ids[0].startswith("red")
    assert toys.search("red. dot", k=1).ids  # no file


def test_a_file_that_is_no_picture_is_told(seen, tmp_path):
    gallery, _ = seen
    for name in ("letter.txt", "broken.jpg"):
        (tmp_path / name).write_text("dear all")
        with pytest.raises(ImageReadError):
            gallery.search(str(tmp_path / name))


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("", ValueError, "expected a sentence or a picture, got an empty text; say what to look for"),
        (["red", "  "], ValueError, "in query 1, got an empty text"),
        ([], ValueError, "at least one query, got an empty list"),
        (None, TypeError, "a sentence, a picture or a mixture, got NoneType"),
        (3, TypeError, "got int: 3"),
        (["red", 3], TypeError, "in query 1, got int: 3"),
        ({}, ValueError, "expected the keys 'image', 'text' and 'minus' in a mixture, got none"),
        ({"txt": "red"}, ValueError, "got 'txt': did you mean 'text'"),
        ({"minus": "red"}, ValueError, "expected something to look for in a mixture"),
        ({"text": ("red", -1)}, ValueError, r"expected \(what, weight\) with a weight above 0 for 'text'"),
        ({"text": ("red", "blue")}, ValueError, r"expected \(what, weight\)"),
        ({"text": 3}, TypeError, "expected a sentence, got int: 3"),
        ({"red", "blue"}, TypeError, "got a set, which has no order"),
    ],
)
def test_what_is_no_query_is_refused(toys, query, error, message):
    with pytest.raises(error, match=message):
        toys.search(query)


def test_an_order_holds_no_table_of_all_scores_and_finds_what_one_would(monkeypatch):
    rng = np.random.default_rng(0)
    items, queries = rng.integers(0, 3, (23, 2)).astype(np.float32), rng.random((5, 2), dtype=np.float32)
    table = order_scores(torch.from_numpy(items), torch.from_numpy(queries)).T.numpy()
    held = Vectors("order", None)
    held.add(items)
    monkeypatch.setattr("sklearn_mm.retrieval.gallery._vectors._BLOCK", 4)
    monkeypatch.setattr("sklearn_mm.retrieval.gallery._vectors._QUERY_BLOCK", 2)
    some = np.array([1, 2, 7, 8, 9, 10, 11, 20, 22])
    for rows in (None, some):
        among = np.arange(23) if rows is None else rows
        expected = among[np.argsort(-table[:, among], axis=1, kind="stable")[:, :6]]  # many are equal
        scores, places = held.search_by_order(queries, 6, rows)
        np.testing.assert_array_equal(places, expected)
        np.testing.assert_array_equal(scores, np.take_along_axis(table, expected, axis=1))


def test_an_order_has_no_mixtures(trained, fitted):
    gallery = Gallery(trained["order"]).add(fitted[1], ids=range(96))
    assert gallery.search(["red", "blue dot"], k=2).scores[0] <= 0
    assert gallery.search(fitted[1][5], k=1).ids == [5]
    with pytest.raises(ValueError, match="a mixture adds cosines, and the model compares by similarity='order'"):
        gallery.search({"text": "red", "minus": "dot"})


def test_words_that_training_has_not_seen_are_named_once(fitted):
    ranker, features, captions = fitted
    gallery = Gallery(clone(ranker).fit(features, captions)).add(features[:3], ids=["a", "b", "c"])
    gallery.search("a purple dot", warn_unknown=False)
    with pytest.warns(UnknownWordsWarning, match="'purple'"):
        gallery.search("a purple dot")
    gallery.search("a purple dot")
