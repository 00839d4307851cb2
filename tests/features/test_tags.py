import pickle

import numpy as np
import pytest
from scipy import sparse

from sklearn_mm.features import TagVectorizer
from sklearn_mm.persistence import load, save

ROWS = [["sea", "blue sky"], ["Sea", "sea"], [], ["dog", "sea", "blue sky"], None]


def test_tags_are_marked_once_and_ordered_by_their_number_of_images():
    vectorizer = TagVectorizer().fit(ROWS)
    assert vectorizer.tags_ == ["sea", "blue sky", "dog"]
    marks = vectorizer.transform(ROWS)
    assert sparse.issparse(marks)
    assert marks.dtype == np.int8
    np.testing.assert_array_equal(marks.toarray(), [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0]])


def test_every_form_of_rows_is_read_alike():
    pandas = pytest.importorskip("pandas")
    expected = TagVectorizer().fit_transform(ROWS).toarray()
    for rows in (
        [tuple(row or ()) for row in ROWS],
        pandas.Series(ROWS),
        pandas.DataFrame({"tags": ROWS}),
        np.array([*ROWS, 0], dtype=object)[:-1],
    ):
        np.testing.assert_array_equal(TagVectorizer().fit_transform(rows).toarray(), expected)
    texts = [", ".join(row or ()) for row in ROWS]
    np.testing.assert_array_equal(TagVectorizer(separator=",").fit_transform(texts).toarray(), expected)
    assert TagVectorizer().fit(texts[:1]).tags_ == ["blue", "sea,", "sky"]


def test_rare_many_and_excluded_tags_are_left_out():
    assert TagVectorizer(min_df=2).fit(ROWS).tags_ == ["sea", "blue sky"]
    assert TagVectorizer(min_df=0.5).fit(ROWS).tags_ == ["sea"]
    assert TagVectorizer(max_features=1).fit(ROWS).tags_ == ["sea"]
    assert TagVectorizer(exclude=["SEA"]).fit(ROWS).tags_ == ["blue sky", "dog"]
    assert TagVectorizer(lowercase=False).fit(ROWS).tags_ == ["sea", "blue sky", "Sea", "dog"]


def test_unknown_tags_mark_nothing():
    assert TagVectorizer().fit(ROWS).transform([["cat"]]).nnz == 0


def test_frames_come_out_with_the_names_of_tags():
    pytest.importorskip("pandas")
    frame = TagVectorizer(sparse_output=False).set_output(transform="pandas").fit_transform(ROWS)
    assert frame.columns.tolist() == ["sea", "blue sky", "dog"]
    assert set(frame.dtypes) == {np.dtype(np.int8)}


def test_saved_vectorizers_mark_as_before(tmp_path):
    vectorizer = TagVectorizer(exclude=("dog",)).fit(ROWS)
    save(vectorizer, tmp_path / "tags")
    for opened in (load(tmp_path / "tags"), pickle.loads(pickle.dumps(vectorizer))):
        np.testing.assert_array_equal(opened.transform(ROWS).toarray(), vectorizer.transform(ROWS).toarray())


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([["a"], 3], TypeError, "tags of row 1, got 3"),
        ([["a"], ["b", 3]], TypeError, "got int in row 1"),
        ("a b", TypeError, "single string"),
        (np.empty((2, 2), dtype=object), ValueError, "one column of tags, got 2"),
    ],
)
def test_what_is_no_tag_is_named(rows, error, message):
    with pytest.raises(error, match=message):
        TagVectorizer().fit(rows)
