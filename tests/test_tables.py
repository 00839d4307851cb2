"""Frames, columns, mappings and generators where texts, labels, tags or groups are asked for, at every entry point."""

import io

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer

from sklearn_mm._checks import check_captions, check_groups, check_labels, check_texts
from sklearn_mm._tables import as_number_table, is_frame, is_missing, shown
from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator
from sklearn_mm.annotation._columns import split_frame
from sklearn_mm.features import TagVectorizer, TextNGramEncoder
from sklearn_mm.metrics import RetrievalScorer, annotation_report, retrieval_ranks
from sklearn_mm.model_selection import explode_captions, find_leaks, group_captions
from sklearn_mm.retrieval import JointEmbeddingRanker

COLOURS = ["red", "green", "blue", "grey", "pink", "white"]
CAPTIONS = [f"a {colour} dot" for colour in COLOURS]
X = np.eye(6, dtype=np.float32)
RANKER = {"n_components": 4, "batch_size": 4, "max_epochs": 2, "random_state": 0}
ENCODER = {"n_components": 4, "word_dim": 4, "max_epochs": 1, "random_state": 0}


class OtherColumn:
    """A column as polars has it: its own class, with ``to_list``."""

    def __init__(self, cells):
        self.cells = list(cells)

    def __len__(self):
        return len(self.cells)

    def __iter__(self):
        return iter(self.cells)

    def to_list(self):
        return list(self.cells)


class OtherFrame:
    """A frame as polars has it: iterating it gives columns, which are got by name."""

    def __init__(self, columns):
        self._columns = {name: OtherColumn(cells) for name, cells in columns.items()}

    @property
    def columns(self):
        return list(self._columns)

    @property
    def shape(self):
        return (len(next(iter(self._columns.values()))), len(self._columns))

    def __len__(self):
        return self.shape[0]

    def __iter__(self):
        return iter(self._columns.values())

    def __getitem__(self, name):
        return self._columns[name]

    def select(self, names):
        return OtherFrame({name: self._columns[name] for name in names})

    def __array__(self, dtype=None, copy=None):
        cells = [column.cells for column in self._columns.values()]
        return np.array(cells, dtype=dtype).T


def polars_frame(columns):
    return pytest.importorskip("polars").DataFrame(columns)


def array_of_objects(columns):
    table = np.empty((len(next(iter(columns.values()))), len(columns)), dtype=object)
    for number, column in enumerate(columns.values()):
        table[:, number] = column
    return table


FRAMES = {"pandas": pd.DataFrame, "other": OtherFrame, "polars": polars_frame}
COLUMNS = {
    "Series": pd.Series,
    "string Series": lambda cells: pd.Series(cells, dtype="string"),
    "categories": lambda cells: pd.Series(cells, dtype="category"),
    "Index": pd.Index,
    "other column": OtherColumn,
    "polars Series": lambda cells: pytest.importorskip("polars").Series(cells),
    "tuple": tuple,
    "generator": iter,
    "array": np.array,
    "array of objects": lambda cells: np.array(cells, dtype=object),
    "array of one column": lambda cells: np.array(cells)[:, None],
    **{f"frame of {name}": lambda cells, make=make: make({"caption": cells}) for name, make in FRAMES.items()},
}
NO_ROWS = {
    "mapping": dict(enumerate(CAPTIONS)),
    "set": set(CAPTIONS),
    "file": io.StringIO("\n".join(CAPTIONS)),
    "str": "a red dot",
    "number": 3,
}


@pytest.fixture(scope="module")
def ranker():
    return JointEmbeddingRanker(**RANKER).fit(X, CAPTIONS)


@pytest.mark.parametrize("form", COLUMNS)
def test_a_column_of_any_library_is_its_texts_and_its_captions(form):
    assert check_texts(COLUMNS[form](CAPTIONS)) == CAPTIONS
    captions = check_captions(COLUMNS[form](CAPTIONS), X)
    assert captions.texts == CAPTIONS
    assert captions.image_index.tolist() == list(range(6))


@pytest.mark.parametrize("make", [*FRAMES.values(), array_of_objects], ids=[*FRAMES, "array"])
def test_several_columns_are_several_captions_without_those_that_are_missing(make):
    captions = check_captions(make({"first": ["a", None, "c"], "second": ["d", "e", None]}))
    assert captions.texts == ["a", "d", "e", "c"]
    assert captions.image_index.tolist() == [0, 0, 1, 2]
    with pytest.raises(ValueError, match="row 1 has no captions"):
        check_captions(make({"first": ["a", None], "second": ["b", None]}))
    with pytest.raises(TypeError, match=r"got int in row 0 of the column ('id'|0): 7; select the columns"):
        check_captions(make({"id": [7, 8], "caption": ["a", "b"]}))


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_a_column_may_hold_lists_of_captions_or_numbers(make):
    nested = check_captions(make({"captions": [["a", "b"], ["c"]]}))
    assert (nested.texts, nested.image_index.tolist()) == (["a", "b", "c"], [0, 0, 1])
    numbers = check_captions(make({"class": [3, 5]}))
    assert (numbers.texts, numbers.numbers.tolist()) == (["3", "5"], [3, 5])


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_texts_want_one_column_and_name_those_there_are(make):
    with pytest.raises(ValueError, match="one column of texts, got 2: 'a', 'b'; select one"):
        check_texts(make({"a": ["x"], "b": ["y"]}))


@pytest.mark.parametrize("value", [None, np.nan, np.float32("nan"), pd.NA, pd.NaT], ids=repr)
def test_what_is_missing_is_named_by_its_row(value):
    assert is_missing(value)
    for check in (check_texts, check_captions):
        with pytest.raises(TypeError, match="row 1.*missing"):
            check(["a", value])


@pytest.mark.parametrize("value", ["", "nan", 0, False, [], np.array([np.nan, 1.0])], ids=repr)
def test_what_is_there_is_not_missing(value):
    assert not is_missing(value)


@pytest.mark.parametrize("kind", NO_ROWS)
def test_what_does_not_say_which_row_is_which_is_refused_everywhere(kind, ranker):
    y = NO_ROWS[kind]
    calls = {
        "texts": lambda: ranker.transform_text(y),
        "search": lambda: ranker.search_images(y, 2),
        "gallery": lambda: ranker.set_gallery(texts=y),
        "captions": lambda: JointEmbeddingRanker(**RANKER).fit(X, y),
        "score": lambda: RetrievalScorer()(ranker, X, y),
        "encoder": lambda: TextNGramEncoder(**ENCODER).fit(y),
        "instances": lambda: TextNGramEncoder(**ENCODER).fit(CAPTIONS, y),
        "group": lambda: group_captions(X, y),
        "images to group": lambda: group_captions(y, CAPTIONS),
        "explode": lambda: explode_captions(X, y),
        "leaks": lambda: find_leaks(X, y, X, y),
        "leaks of images": lambda: find_leaks(y, None, X, None),
        "labels": lambda: MultiLabelAnnotator().fit(X, y),
        "numbers": lambda: LabelCountPredictor().fit(X, y),
        "tags": lambda: TagVectorizer().fit(y),
        "groups": lambda: JointEmbeddingRanker(**RANKER).fit(X, CAPTIONS, groups=y),
        "owners": lambda: retrieval_ranks(X, X, y),
        "report": lambda: annotation_report(y, X, 1),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match="expected .*, got"):
            call()
            pytest.fail(name)


def test_a_mapping_is_told_how_it_becomes_rows():
    with pytest.raises(TypeError, match=r"got a dict, of which the keys would be read; .*\[mapping\[key\] for key"):
        JointEmbeddingRanker(**RANKER).fit(X, {f"{row}.jpg": text for row, text in enumerate(CAPTIONS)})
    with pytest.raises(TypeError, match=r"got a dict; make it a frame: pandas.DataFrame\(X\)"):
        JointEmbeddingRanker(**RANKER).fit({"a": [1, 2], "b": [3, 4]}, ["x", "y"])
    with pytest.raises(TypeError, match=r"matrix of features, got a generator; stack its rows"):
        JointEmbeddingRanker(**RANKER).fit((row for row in X), CAPTIONS)


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_a_ranker_takes_a_frame_of_one_column_as_that_column(make, ranker):
    frame = make({"caption": CAPTIONS})
    fitted = JointEmbeddingRanker(**RANKER).fit(X, frame)
    np.testing.assert_array_equal(fitted.transform(X), ranker.transform(X))
    np.testing.assert_array_equal(fitted.transform_text(frame), ranker.transform_text(CAPTIONS))
    for found, expected in zip(fitted.search_images(frame, 2), ranker.search_images(CAPTIONS, 2), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert fitted.set_gallery(texts=frame).gallery_texts_.tolist() == CAPTIONS
    assert RetrievalScorer()(fitted, X, frame) == RetrievalScorer()(ranker, X, CAPTIONS)
    assert fitted.score(X, frame) == ranker.score(X, CAPTIONS)
    frozen = JointEmbeddingRanker(TfidfVectorizer(), **RANKER).fit(X, frame)
    assert frozen.transform_text(frame).shape == (6, 4)


@pytest.mark.parametrize("make", [pd.DataFrame, polars_frame], ids=["pandas", "polars"])
def test_a_column_transformer_hands_its_frame_of_one_column_to_an_encoder(make):
    frame = make({"caption": CAPTIONS, "n": list(range(6))})
    columns = ColumnTransformer([("t", TextNGramEncoder(**ENCODER), ["caption"]), ("n", "passthrough", ["n"])])
    embedded = columns.fit_transform(frame)
    assert embedded.shape == (6, 5)
    np.testing.assert_array_equal(embedded[:, :4], TextNGramEncoder(**ENCODER).fit(CAPTIONS).transform(CAPTIONS))


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_instances_of_an_encoder_may_be_columns_of_a_frame(make):
    expected = TextNGramEncoder(**ENCODER).fit(CAPTIONS, [0, 0, 1, 1, 2, 2]).transform(CAPTIONS)
    one = make({"scene": ["x", "x", "y", "y", "z", "z"]})
    two = make({"scene": ["x", "x", "x", "x", "y", "y"], "part": [1, 1, 2, 2, 1, 1]})
    for y in (one, two):
        fitted = TextNGramEncoder(**ENCODER).fit(make({"caption": CAPTIONS}), y)
        np.testing.assert_array_equal(fitted.transform(CAPTIONS), expected)


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_grouping_and_leaks_read_frames_row_by_row(make):
    paths = ["1.jpg", "2.jpg", "1.jpg"]
    texts = make({"caption": ["a", "b", "c"]})
    assert group_captions(paths, texts) == (["1.jpg", "2.jpg"], [["a", "c"], ["b"]])
    assert explode_captions(paths, make({"one": ["a", "b", "c"], "two": ["d", None, None]}))[:2] == (
        ["1.jpg", "1.jpg", "2.jpg", "1.jpg"],
        ["a", "d", "b", "c"],
    )
    report = find_leaks(make({"file": paths}), texts, ["2.jpg"], ["c"])
    assert [tuple(leak) for leak in report.images] == [(0, (1,))]
    assert [tuple(leak) for leak in report.captions] == [("c", 0, (2,))]


def test_images_may_be_handed_over_one_by_one():
    paths = ["1.jpg", "2.jpg", "1.jpg"]
    assert group_captions(iter(paths), iter("abc")) == (["1.jpg", "2.jpg"], [["a", "c"], ["b"]])
    assert explode_captions(iter(paths), iter("abc"))[0] == paths
    assert find_leaks(iter(paths), iter("abc"), iter(["2.jpg"]), iter("c"))


def test_images_that_are_missing_are_none_of_the_others():
    assert group_captions(["1.jpg", None, None], ["a", "b", "c"])[1] == [["a"], ["b"], ["c"]]
    assert not find_leaks([None, np.nan], None, [None, np.nan], None)
    rows = pd.DataFrame({"file": ["1.jpg", None], "by": [None, None]})
    assert [leak.test_row for leak in find_leaks(rows, None, rows, None).images] == [0]


def test_captions_of_a_set_are_sorted():
    assert check_captions([{"b", "a", "c"}, "d"]).texts == ["a", "b", "c", "d"]


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_groups_and_owners_may_be_a_frame_of_one_column(make):
    assert check_groups(make({"scene": ["x", "y", "x"]}), 3).tolist() == ["x", "y", "x"]
    owners = make({"row": [0, 0, 1]})
    np.testing.assert_array_equal(
        np.asarray(retrieval_ranks(X[:2], X[[0, 0, 1]], owners)),
        np.asarray(retrieval_ranks(X[:2], X[[0, 0, 1]], [0, 0, 1])),
    )


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_tags_may_be_a_frame_of_one_column(make):
    rows = [["sea", "sky"], None, ["sea"]]
    np.testing.assert_array_equal(
        TagVectorizer().fit_transform(make({"tags": rows})).toarray(), TagVectorizer().fit_transform(rows).toarray()
    )
    with pytest.raises(ValueError, match="one column of tags, got 2"):
        TagVectorizer().fit(make({"a": ["x"], "b": ["y"]}))


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_pictures_and_tags_of_any_frame_are_told_apart(make):
    frame = make({"sea": [1, 0], "picture": ["1.jpg", "2.jpg"], "sky": [0, 1]})
    pictures, tags = split_frame(frame, np.array([True, False, True]))
    assert list(pictures) == ["1.jpg", "2.jpg"]
    np.testing.assert_array_equal(tags.toarray(), [[1, 0], [0, 1]])
    with pytest.raises(ValueError, match="expected one column of pictures beside the tags, got 2: 'sea', 'picture'"):
        split_frame(frame, np.array([False, False, True]))


def test_pictures_without_a_length_are_named():
    annotator = MultiLabelAnnotator(TextNGramEncoder(**ENCODER))
    with pytest.raises(TypeError, match="got a generator, .*make it a list"):
        annotator.fit((text for text in CAPTIONS), [["a"], ["b"]] * 3)
    with pytest.raises(TypeError, match="got a generator.*make it a list"):
        JointEmbeddingRanker(image_encoder=TextNGramEncoder(**ENCODER)).fit((text for text in CAPTIONS), CAPTIONS)


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_a_frame_is_known_by_what_it_offers(make):
    frame = make({"a": [1, None]})
    assert is_frame(frame)
    assert np.isnan(as_number_table(frame)[1, 0])
    assert not any(is_frame(other) for other in (X, sparse.csr_array(X), pd.Series([1]), [[1]], {"columns": 1}))
    assert check_labels(make({"label": ["a", "b"]})) == ["a", "b"]


def test_long_values_are_cut_in_messages():
    long = "a" * 10**6
    assert len(shown(long)) == 60
    for call in (
        lambda: check_texts([b"x", long.encode()]),
        lambda: check_captions([long, {"raw": long}]),
        lambda: MultiLabelAnnotator().fit(X[:2], [[long], [None]]),
        lambda: TagVectorizer().fit([[3], long]),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert len(str(caught.value)) < 400
