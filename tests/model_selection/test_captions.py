import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse
from sklearn.model_selection import GroupKFold, KFold, cross_val_score

from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.model_selection import explode_captions, group_captions
from tests.metrics.linear_ranker import LinearRanker

CAPTIONS = ["a dog", "a cat", "it barks", "a bird", "it purrs"]
NESTED = [["a dog", "it barks"], ["a cat", "it purrs"], ["a bird"]]
ROWS = [0, 1, 0, 2, 1]


def _pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (4 + i, 5, 3), dtype=np.uint8) for i in range(3)]  # of different sizes


FORMS = {
    "paths": ["c.jpg", "a.jpg", "b.jpg"],
    "ids": [7, 3, 5],
    "arrays": _pictures(),
    "PIL": [Image.fromarray(picture) for picture in _pictures()],
    "features": np.arange(6.0).reshape(3, 2),
    "stacked pictures": np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3),
    "object array": np.array(["c.jpg", "a.jpg", "b.jpg"], dtype=object),
    "Series": pd.Series(["c.jpg", "a.jpg", "b.jpg"], index=[10, 20, 30]),
    "DataFrame": pd.DataFrame({"file": ["x", "x", "y"], "size": [1, 2, 1]}),
    "sparse features": sparse.csr_matrix(np.eye(3)),
}


def _take(X, rows):
    if isinstance(X, list):
        return [X[row] for row in rows]
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def _listed(X):
    if sparse.issparse(X):
        return X.toarray().tolist()
    if isinstance(X, pd.DataFrame | pd.Series):
        return X.to_numpy().tolist()
    return [np.asarray(row).tolist() for row in X]


@pytest.mark.parametrize("form", FORMS)
def test_captions_of_one_image_are_gathered_in_any_form_of_image(form):
    X = _take(FORMS[form], ROWS)
    images, nested = group_captions(X, CAPTIONS)
    assert type(images) is type(X)
    assert _listed(images) == _listed(FORMS[form])
    assert nested == NESTED


@pytest.mark.parametrize("form", FORMS)
def test_exploding_repeats_images_and_grouping_undoes_it(form):
    X, texts, groups = explode_captions(FORMS[form], NESTED)
    assert texts == ["a dog", "it barks", "a cat", "it purrs", "a bird"]
    assert groups.tolist() == [0, 0, 1, 1, 2]
    assert _listed(X) == _listed(_take(FORMS[form], [0, 0, 1, 1, 2]))
    images, nested = group_captions(X, texts)
    assert _listed(images) == _listed(FORMS[form])
    assert nested == NESTED


def test_pictures_of_equal_content_are_one_image_and_those_of_other_shape_another():
    picture = np.zeros((2, 6), dtype=np.uint8)
    images, nested = group_captions([picture, picture.copy(), picture.reshape(6, 2), picture.astype(int)], list("abcd"))
    assert len(images) == 3
    assert nested == [["a", "b"], ["c"], ["d"]]


def test_pictures_with_palettes_are_told_apart_by_what_they_show():
    red, blue = (Image.new("P", (4, 4)) for _ in range(2))
    red.putpalette([255, 0, 0])
    blue.putpalette([0, 0, 255])
    assert group_captions([red, blue, red.copy()], ["a", "b", "c"])[1] == [["a", "c"], ["b"]]


def test_y_of_equal_numbers_of_captions_stays_a_list():
    assert group_captions(["a", "b"], [["x", "y"], ["z", "w"]])[1] == [["x", "y"], ["z", "w"]]


def test_the_grouped_form_cannot_leak_and_the_exploded_one_needs_its_groups():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 4))
    y = [[f"word{row} word{row % 5}"] * 3 for row in range(30)]
    rows, texts, groups = explode_captions(X, y)
    scores = cross_val_score(
        LinearRanker(),
        rows,
        texts,
        groups=groups,
        cv=GroupKFold(3),
        scoring=lambda *args: RetrievalScorer()(*args)["rsum"],
    )
    assert np.isfinite(scores).all()
    leaked = [set(groups[train]) & set(groups[test]) for train, test in KFold(3, shuffle=True).split(rows)]
    assert all(leaked)
    assert not any(set(groups[train]) & set(groups[test]) for train, test in GroupKFold(3).split(rows, groups=groups))


@pytest.mark.parametrize("function", [group_captions, explode_captions])
def test_bad_captions_are_named(function):
    with pytest.raises(ValueError, match="got 1 caption entries for 2 images"):
        function(["a", "b"], ["x"])
    with pytest.raises(ValueError, match="row 1 has an empty caption"):
        function(["a", "b"], ["x", " "])
    with pytest.raises(TypeError, match="row 1"):
        function(["a", "b"], ["x", 3])
