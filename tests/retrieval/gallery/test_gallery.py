"""A gallery of things with names: what comes in, goes out, and is found."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_mm.exceptions import GalleryWarning
from sklearn_mm.index import ExactIndex, FaissIndex
from sklearn_mm.retrieval import CorrelationRanker, Gallery


def same(one, other):
    """Whether two results are equal to the bit."""
    return one.rows() == other.rows() and one.scores.tobytes() == other.scores.tobytes()


def test_a_sentence_finds_names_scores_ranks_and_metadata(toys):
    found = toys.search("a green box", k=2)
    assert found.ids[0] == "green-box"
    assert len(found) == 2
    assert found.rows()[0].keys() == {"id", "score", "rank", "year", "box"}
    assert found.rows()[0] | {"score": 0} == {"id": "green-box", "score": 0, "rank": 0, "year": 2022, "box": "b"}
    assert found.scores[0] > found.scores[1]
    assert found.ranks.tolist() == [0, 1]


def test_several_queries_make_one_table_with_a_column_of_them(toys):
    found = toys.search(["a green box", "blue star"], k=3)
    frame = found.to_frame()
    assert frame.columns.tolist() == ["query", "id", "score", "rank", "year", "box"]
    assert frame["query"].tolist() == ["a green box"] * 3 + ["blue star"] * 3
    assert [part.ids[0] for part in found.split()] == ["green-box", "blue-star"]
    assert same(found.split()[1], toys.search("blue star", k=3))


@pytest.mark.parametrize("parts", [[95, 1], [1] * 5 + [91], [40, 40, 16], [2, 94]])
@pytest.mark.parametrize("kind", ["solved", "pipeline", "trained", "order", "ensemble", "faiss"])
def test_pictures_that_came_bit_by_bit_are_found_as_those_that_came_at_once(fitted, trained, parts, kind):
    ranker, features, _ = fitted
    index = None
    if kind == "pipeline":
        ranker = make_pipeline(FunctionTransformer(), ranker)
    elif kind in trained:
        ranker = trained[kind]
    elif kind == "faiss":
        pytest.importorskip("faiss")
        index = FaissIndex()
    names = [f"{row}.jpg" for row in range(96)]
    once = Gallery(ranker, index=index).add(features, ids=names)
    by_parts = Gallery(ranker, index=index)
    for start, stop in zip(np.cumsum([0, *parts]), np.cumsum(parts), strict=False):
        by_parts.add(features[start:stop], ids=names[start:stop])
    for query in (["a red dot", "a blue box"], features[:3]):
        assert same(once.search(query, k=20), by_parts.search(query, k=20))
    assert same(once.similar("7.jpg", 5), by_parts.similar("7.jpg", 5))
    by_parts.add(features[:4], ids=["x", "y", "z", "w"]).remove(["x", "y", "z", "w"])
    assert same(once.search("a red dot", k=96), by_parts.search("a red dot", k=96))


def test_what_is_removed_is_not_found_and_its_name_is_free_again(toys):
    toys.remove(["green-box", "red-dot"])
    assert len(toys) == 7
    assert "green-box" not in toys
    assert "green-box" not in toys.search("green box", k=7).ids
    toys.add([[0, 1, 0, 0, 1, 0]], ids=["green-box"], metadata={"year": [1999]})
    assert toys.search("green box", k=1).rows()[0] | {"score": 0} == {
        "id": "green-box", "score": 0, "rank": 0, "year": 1999, "box": None,
    }  # fmt: skip
    toys.remove(toys.ids)
    assert toys.ids == []
    with pytest.raises(ValueError, match="the gallery is empty; add pictures before"):
        toys.search("green box")
    assert toys.add([[0, 1, 0, 0, 1, 0]], ids=["again"]).search("red").ids == ["again"]


def test_an_update_replaces_what_is_there_and_adds_the_rest(toys):
    toys.update([[1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]], ids=["green-box", "plain-blue"], metadata={"year": [1, 2]})
    assert len(toys) == 10
    assert toys.ids[-2:] == ["green-box", "plain-blue"]
    assert toys.search("red", k=1).ids == ["green-box"]
    assert toys.search("blue", k=1).rows()[0]["year"] == 2
    assert toys.metadata.loc["green-box", "year"] == 1


@pytest.mark.parametrize(
    "make", [pd.DataFrame, pl.DataFrame, dict, lambda columns: pd.DataFrame(columns).to_dict("records")]
)
def test_metadata_comes_as_a_frame_columns_or_rows(word_ranker, make):
    columns = {"year": [1, 2, 3], "city": ["Rome", None, "Pisa"], "good": [True, False, True], "size": [0.5, None, 2.0]}
    rows = Gallery(word_ranker).add(np.eye(6)[:3], ids=[5, 3, 1], metadata=make(columns)).search("red", k=3).rows()
    assert [row["id"] for row in rows] == [5, 3, 1]
    assert [row["year"] for row in rows] == [1, 2, 3]
    assert [row["good"] for row in rows] == [True, False, True]
    assert rows[0]["city"] == "Rome"
    assert rows[1]["size"] is None or np.isnan(rows[1]["size"])
    assert pd.isna(rows[1]["city"])


def test_columns_that_some_pictures_lack_are_missing_there(word_ranker):
    gallery = Gallery(word_ranker).add(np.eye(6)[:2], ids=["a", "b"], metadata={"year": [1, 2]})
    gallery.add(np.eye(6)[2:4], ids=["c", "d"], metadata={"city": ["Rome", "Pisa"]}).add(np.eye(6)[4:], ids=["e", "f"])
    frame = gallery.metadata
    assert frame["year"].tolist()[:2] == [1, 2]
    assert frame["year"].isna().tolist() == [False, False, True, True, True, True]
    assert frame["city"].isna().tolist() == [True, True, False, False, True, True]
    assert gallery.search("red", where="year > 1").ids == ["b"]


def test_ids_are_the_paths_by_default(word_ranker, tmp_path):
    class OfPaths(type(word_ranker)):
        def transform(self, X):
            return np.array([[len(str(path)) % 7, 1, 0, 0, 0, 0] for path in X], dtype=np.float32)

    gallery = Gallery(OfPaths().fit(None)).add([tmp_path / "a.jpg", "b.jpg"]).add(pd.Series(["c.jpg", "dd.jpg"]))
    gallery.add(np.array(["e.jpg"])).add(pd.DataFrame({"image": ["f.jpg", "g.jpg"]}))
    assert gallery.ids == [str(tmp_path / "a.jpg"), "b.jpg", "c.jpg", "dd.jpg", "e.jpg", "f.jpg", "g.jpg"]
    with pytest.raises(ValueError, match="row 1 is no path; pass ids, one for each picture"):
        gallery.add(["h.jpg", np.zeros((4, 4, 3), np.uint8)])
    with pytest.raises(TypeError, match="wrap it in a list"):
        gallery.add("h.jpg")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ids": ["x", "y", "x"]}, ValueError, "each id once, got 1 again: 'x' stands 2 times, in rows 0, 2"),
        ({"ids": ["x", "red-box", "y"]}, ValueError, "1 of 3 ids are in the gallery already: 'red-box'; replace"),
        ({"ids": ["x", "y"]}, ValueError, "one id for each of the 3 pictures, got 2"),
        ({"ids": ["x", 3, "y"]}, TypeError, "expected ids of str, as those in the gallery, got int in row 1: 3"),
        ({"ids": ["x", None, "y"]}, TypeError, "got NoneType in row 1"),
        ({"ids": None}, ValueError, "row 0 is no path; pass ids"),
        ({"metadata": {"year": [1, 2]}}, ValueError, "one row for each of the 3 pictures, got 2 in the column 'year'"),
        ({"metadata": {"year": 3}}, TypeError, "expected a list for the column 'year' of the metadata, got int"),
        ({"metadata": "year"}, TypeError, "expected metadata as a data frame"),
        ({"metadata": [{"a": 1}, 3, {}]}, TypeError, "got int in row 1"),
        ({"metadata": {3: [1, 2, 3]}}, TypeError, "names of the metadata's columns as str, got int"),
    ],
)
def test_wrong_names_and_metadata_are_refused_and_nothing_is_added(toys, arguments, error, message):
    with pytest.raises(error, match=message):
        toys.add(np.eye(6)[:3], **{"ids": ["x", "y", "z"], **arguments})
    assert len(toys) == 9
    assert toys.search("red", k=9).to_frame().shape == (9, 5)


def test_an_id_that_is_not_there_is_named_with_those_like_it(toys):
    for ask in (toys.remove, toys.similar):
        with pytest.raises(KeyError, match="no id 'green-bocks'.*did you mean 'green-box'"):
            ask("green-bocks")
    with pytest.raises(KeyError, match="no id 'x' and 1 more of 3"):
        toys.remove(["x", "red-dot", "y"])
    assert len(toys) == 9


def test_more_than_there_is_gives_all_and_says_so(toys):
    with pytest.warns(GalleryWarning, match="k=12 is larger than the gallery, which has 9 pictures; all are returned"):
        assert len(toys.search("red", k=12)) == 9
    assert len(toys.search("red")) == 9  # ten by default, or all of fewer
    assert len(toys.search("red", k=5, where="box == 'a'")) == 3
    with pytest.raises(ValueError, match="k must be a positive int, got 0"):
        toys.search("red", k=0)


def test_identical_pictures_under_two_ids_are_both_found_in_the_order_they_came(toys):
    toys.add([[0, 0.9, 0, 0, 0.81, 0]], ids=["twin"])
    found = toys.search("green box", k=2)
    assert found.ids == ["green-box", "twin"]
    assert found.scores[0] == found.scores[1]
    assert toys.similar("green-box", k=1).ids == ["twin"]


def test_similar_pictures_are_those_of_highest_cosine_without_the_picture_itself(fitted):
    ranker, features, _ = fitted
    gallery = Gallery(ranker).add(features, ids=range(96))
    vectors = ranker.transform(features)
    cosines = vectors @ vectors[8]
    cosines[8] = -2
    found = gallery.similar(8, k=4)
    assert found.ids == np.argsort(-cosines)[:4].tolist()
    np.testing.assert_allclose(found.scores, np.sort(cosines)[::-1][:4], atol=1e-6)
    # and so is a picture from elsewhere
    assert gallery.search(features[8], k=1).ids == [8]


def test_sentences_find_what_the_ranker_itself_finds(fitted):
    ranker, features, _ = fitted
    texts = ["a red dot", "a star", "blue"]
    scores, rows = ranker.search_images(texts, k=7)
    found = Gallery(ranker).add(features, ids=range(96)).search(texts, k=7)
    np.testing.assert_array_equal(np.reshape(found.ids, (3, 7)), rows)
    np.testing.assert_array_equal(found.scores.reshape(3, 7), scores)


@pytest.mark.parametrize("index", [ExactIndex(dtype="float16"), "faiss"])
def test_another_index_finds_the_same(fitted, index):
    if index == "faiss":
        pytest.importorskip("faiss")
        index = FaissIndex("Flat")
    ranker, features, _ = fitted
    gallery = Gallery(ranker, index=index).add(features[:60], ids=range(60)).add(features[60:], ids=range(60, 96))
    truth = Gallery(ranker).add(features, ids=range(96))
    for each in (gallery, truth):
        each.remove([3, 70])
    for rows in (None, np.arange(94) % 2 == 0):
        found, expected = gallery.search("red star", 5, where=rows), truth.search("red star", 5, where=rows)
        assert found.ids == expected.ids
        np.testing.assert_allclose(found.scores, expected.scores, atol=2e-3)
    assert len(index) == 0


def test_what_is_no_model_or_index_is_refused(word_ranker):
    with pytest.raises(TypeError, match="got FunctionTransformer"):
        Gallery(FunctionTransformer())
    with pytest.raises(NotFittedError):
        Gallery(CorrelationRanker())
    with pytest.raises(ValueError, match="index must hold no items"):
        Gallery(word_ranker, index=ExactIndex().add(np.eye(3)))
    with pytest.raises(TypeError, match="expected an index with add and search"):
        Gallery(word_ranker, index="Flat")


def test_a_pickled_gallery_answers_alike(fitted):
    ranker, features, _ = fitted
    gallery = Gallery(ranker).add(features, ids=range(96))
    assert same(pickle.loads(pickle.dumps(gallery)).search("red", k=9), gallery.search("red", k=9))


@pytest.mark.parametrize(
    "where", [np.arange(9) % 3 == 1, [False, True, False] * 3, lambda table: table["box"] == "b", "box == 'b'"]
)
def test_where_chooses_what_is_searched(toys, where):
    found = toys.search("green", where=where)
    assert sorted(found.ids) == ["blue-box", "green-box", "red-box"]
    assert found.ids[0] == "green-box"
    assert toys.similar("green-box", where=where).ids == ["red-box", "blue-box"]


def test_where_may_leave_nothing(toys):
    found = toys.search(["green", "red"], where="year > 3000")
    assert len(found) == 0
    assert found.rows() == []
    assert found.to_frame().empty
    assert repr(found) == "nothing found for 'green', 'red'"
    assert [len(part) for part in found.split()] == [0, 0]


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("yaer > 2020", ValueError, "no expression about the metadata.*its columns are 'year', 'box'"),
        ("year >", ValueError, "no expression about the metadata"),
        ("year + 1", TypeError, "expected a mask of bool from where='year \\+ 1', got int64"),
        ([True, False], ValueError, "expected a mask of 9 entries, one for each picture, from where, got shape"),
        ([1, 2], TypeError, "expected a mask of bool from where, got int"),
        (lambda table: 3, TypeError, "expected a mask of bool from the function where"),
    ],
)
def test_a_where_without_sense_is_refused(toys, where, error, message):
    with pytest.raises(error, match=message):
        toys.search("green", where=where)


def test_pictures_of_low_scores_are_left_out(toys):
    scores = toys.search("green", k=9).scores
    assert toys.search("green", min_score=float(scores[2])).scores.tolist() == scores[:3].tolist()
    assert len(toys.search("green", min_score=2)) == 0
    with pytest.raises(TypeError, match="min_score must be a number, got str"):
        toys.search("green", min_score="high")
