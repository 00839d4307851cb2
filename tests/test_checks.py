import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator

from sklearn_mm._checks import (
    check_captions,
    check_features,
    check_finite_rows,
    check_groups,
    check_k,
    check_texts,
    did_you_mean,
    label_matrix,
)

NESTED = [["a", "b"], "c", ("d", "e")]


@pytest.mark.parametrize(
    "y",
    [NESTED, tuple(NESTED), pd.Series(NESTED), np.array(NESTED, dtype=object)],
    ids=["list", "tuple", "series", "object array"],
)
def test_every_container_of_captions_is_flattened_alike(y):
    captions = check_captions(y)
    assert captions.texts == ["a", "b", "c", "d", "e"]
    assert captions.image_index.tolist() == [0, 0, 1, 2, 2]
    assert captions.starts.tolist() == [0, 2, 3, 5]
    assert captions.n_images == 3


def test_an_array_of_strings_is_one_caption_or_several_each():
    assert check_captions(np.array(["a", "b"])).image_index.tolist() == [0, 1]
    assert check_captions(np.array([["a", "b"], ["c", "d"]])).image_index.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("y", [[1, 2], np.array([1, 2]), pd.Series([1, 2]), np.array([1, 2], dtype=object)], ids=type)
def test_numbers_are_read_as_their_text(y):
    captions = check_captions(y)
    assert captions.texts == ["1", "2"]
    assert captions.numbers.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (None, ValueError, "requires y"),
        ("one", TypeError, "single string"),
        (["a", " "], ValueError, "row 1 has an empty caption"),
        (["a", []], ValueError, "row 1 has no captions"),
        (["a", 5], TypeError, "row 1"),
        (["a", ["b", None]], TypeError, "row 1"),
        ([1.0, np.nan], ValueError, "NaN"),
    ],
)
def test_bad_captions_are_named_by_row(y, error, message):
    with pytest.raises(error, match=message):
        check_captions(y)


def test_another_number_of_images_points_to_group_captions():
    with pytest.raises(ValueError, match=r"got 5 caption entries for 4 images; .*group_captions"):
        check_captions(list("abcde"), np.zeros((4, 2)))


def test_texts_may_be_empty_but_not_missing():
    assert check_texts(pd.Series(["a", ""])) == ["a", ""]
    with pytest.raises(TypeError, match="row 1"):
        check_texts(["a", None])


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "3"])
def test_k_is_a_positive_int(k):
    with pytest.raises(ValueError, match="k must be a positive int"):
        check_k(k, 5)


def test_k_above_the_gallery_says_how_large_it_is():
    assert check_k(np.int64(5), 5) == 5
    with pytest.raises(ValueError, match="k=6 is larger than the gallery, which has 5 items"):
        check_k(6, 5)


def test_near_names_are_offered():
    assert did_you_mean("resnet5O", ["resnet50", "vgg16"]) == "did you mean 'resnet50'?"
    assert did_you_mean("zzz", ["b", "a"]) == "known are 'a', 'b'"


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
def test_features_that_are_not_finite_name_their_rows(form, value):
    X = np.eye(9, 3)
    X[3, 1] = value
    with pytest.raises(ValueError, match="X holds NaN, infinity or a number too large in 1 of 9 rows: 3; drop"):
        check_features(BaseEstimator(), form(X), reset=True)
    X[[0, 4, 5, 6, 7], 2] = value
    with pytest.raises(ValueError, match=r"in 6 of 9 rows: 0, 3, 4, 5, 6, \.\.\.; drop"):
        check_features(BaseEstimator(), form(X), reset=True)


def test_large_features_whose_sum_overflows_are_finite():
    check_finite_rows(np.full((4, 2), 1e308))


def test_features_become_float32_or_stay_int8():
    estimator = BaseEstimator()
    assert check_features(estimator, [[1, 2], [3, 4]], reset=True).dtype == np.float32
    assert check_features(estimator, np.ones((2, 2), np.int8), reset=False).dtype == np.int8
    assert check_features(estimator, sparse.csc_matrix(np.eye(2)), reset=False).format == "csr"
    with pytest.raises(ValueError, match="X has 3 features"):
        check_features(estimator, np.ones((2, 3)), reset=False)


def test_lists_of_labels_become_an_indicator_of_ordered_columns():
    marked = label_matrix([["sea", "dog", "sea"], set(), ("cat",)], {"cat": 0, "dog": 1, "sea": 2})
    assert marked.dtype == np.int64
    np.testing.assert_array_equal(marked.toarray(), [[0, 1, 1], [0, 0, 0], [1, 0, 0]])
    assert marked.has_canonical_format
    with pytest.raises(KeyError, match="cow"):
        label_matrix([["cow"]], {"cat": 0})


def test_names_are_looked_up_in_bounded_time_and_space():
    message = did_you_mean("a" * 10**6, ["a" * 10**6, "b"])
    assert len(message) < 200


@pytest.mark.parametrize("form", [list, tuple, np.array, pd.Series, iter], ids=lambda form: form.__name__)
def test_groups_are_one_for_each_row(form):
    assert check_groups(None, 3) is None
    assert check_groups(form(["x", "y", "x"]), 3).tolist() == ["x", "y", "x"]
    assert check_groups(form([2, 0, 2]), 3).tolist() == [2, 0, 2]
    with pytest.raises(ValueError, match="groups must hold one entry for each of the 3 rows, got 2"):
        check_groups(form(["x", "y"]), 3)


@pytest.mark.parametrize("value", [None, np.nan, pd.NA, pd.NaT], ids=repr)
@pytest.mark.parametrize("form", [list, pd.Series, lambda groups: np.array(groups, dtype=object)], ids=range(3))
def test_rows_without_a_group_are_named_and_are_not_one_group(form, value):
    with pytest.raises(ValueError, match="2 rows have no group, the first is row 1: .* give each of them one"):
        check_groups(form(["x", value, "y", value]), 4)
    with pytest.raises(ValueError, match="1 rows have no group, the first is row 0: nan"):
        check_groups(np.array([np.nan, 1.0]), 2)


def test_groups_of_types_that_have_no_order_are_named():
    with pytest.raises(TypeError, match="groups of one type, got int and str"):
        check_groups(np.array(["x", 3], dtype=object), 2)


def test_a_sparse_matrix_by_keys_is_a_matrix_and_no_mapping():
    assert check_features(BaseEstimator(), sparse.dok_array(np.eye(2)), reset=True).format == "csr"
