import io
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.features import FullNetworkEmbedding, ImageCNNEncoder
from sklearn_mm.images import PictureReader, PictureRows, Pictures, ReadFailure, is_table, read_ahead, read_crops

IMAGE = Image.new("RGB", (4, 4))
OBJECTS = np.empty(3, dtype=object)
OBJECTS[:] = ["a.png", IMAGE, np.zeros((4, 4, 3))]

PICTURES = {
    "paths": ["a.png", "b.png"],
    "array of str": np.array(["a.png", "b.png"]),
    "object array": OBJECTS,
    "object column": OBJECTS[:, None],
    "PIL images": (IMAGE, IMAGE),
    "bytes": [b"abc", b"def"],
    "arrays": [np.zeros((4, 4)), np.zeros((4, 5, 3))],
    "nested lists": [[[0, 1], [1, 0]], [[0, 1], [1, 0]]],
    "NHWC": np.zeros((2, 4, 4, 3)),
    "grey stack": np.zeros((2, 4, 4)),
    "tensor": torch.zeros(2, 3, 4, 4),
    "series": pd.Series(["a.png", "b.png"], index=[7, 3]),
    "series of objects": pd.Series([IMAGE, "b.png"]),
    "frame": pd.DataFrame({"image": ["a.png", "b.png"]}, index=[7, 3]),
    "first is missing": [None, "a.png"],
    "first is NaN": [float("nan"), "a.png"],
}
TABLES = {
    "array": np.zeros((2, 3)),
    "one column": np.zeros((2, 1)),
    "one dimension": np.zeros(3),
    "lists": [[1.0, 2.0], [3.0, 4.0]],
    "arrays": [np.zeros(3), np.zeros(3)],
    "numbers": [1, 2, 3],
    "empty": [],
    "objects": np.array([[1, 2], [3, "x"]], dtype=object),
    "tensor": torch.zeros(2, 3),
    "frame": pd.DataFrame({"a": [1.0], "b": [2.0]}),
    "frame of one": pd.DataFrame({"a": [1.0]}),
    "series": pd.Series([1.0, 2.0]),
    "sparse": sparse.csr_array(np.zeros((2, 3))),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_containers_of_pictures_are_told_from_tables(kind):
    assert not is_table(PICTURES[kind])


@pytest.mark.parametrize("kind", TABLES)
def test_tables_are_told_from_pictures(kind):
    assert is_table(TABLES[kind])


@pytest.mark.parametrize("kind", ["series", "frame"])
def test_rows_are_counted_not_looked_up_by_index(kind):
    pictures = Pictures(PICTURES[kind])
    assert [pictures[row] for row in range(len(pictures))] == ["a.png", "b.png"]


def test_rows_of_an_object_column_are_its_entries():
    assert Pictures(PICTURES["object column"])[0] == "a.png"


class Lazy:
    """Decodes a picture when it is asked for one."""

    shape = (5,)

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 5

    def __getitem__(self, row):
        self.asked.append(row)
        if row == 3:
            raise OSError("disk on fire")
        return np.full((4, 4, 3), row, dtype=np.uint8)


def test_a_lazy_container_is_asked_for_no_more_than_one_row_to_know_it():
    lazy = Lazy()
    assert not is_table(lazy)
    assert Pictures(lazy).is_lazy
    assert len(lazy.asked) <= 1


def test_what_a_lazy_container_cannot_read_is_a_failure_of_its_row():
    answers = dict(read_ahead(lambda picture: picture[0, 0, 0], Pictures(Lazy()), range(5), 2, 2))
    assert answers[3] == ReadFailure(3, "row of a Lazy", "disk on fire")
    assert [answers[row] for row in (0, 1, 2, 4)] == [0, 1, 2, 4]


@pytest.mark.parametrize("error", [RuntimeError("no GPU"), KeyError("image"), AttributeError("read"), StopIteration()])
def test_whatever_a_lazy_container_raises_is_a_failure_of_its_row(error):
    class Broken(Lazy):
        def __getitem__(self, row):
            if row != 2:
                raise error
            return IMAGE

    assert not is_table(Broken())
    answers = dict(read_ahead(lambda picture: picture.size, Pictures(Broken()), range(5), 2, 2))
    assert answers[2] == (4, 4)
    assert answers[0].reason.startswith(type(error).__name__)
    _, (failure,) = read_crops(PictureRows(Pictures(Broken()), np.array([2, 1])), PictureReader(4, 4))
    assert failure == answers[1]


def test_a_lack_of_memory_in_a_container_is_no_fault_of_a_row():
    class Short(Lazy):
        def __getitem__(self, row):
            raise MemoryError

    with pytest.raises(MemoryError):
        is_table(Short())
    with pytest.raises(MemoryError):
        list(read_ahead(len, Pictures(Short()), range(5), 2, 2))


class Labeled(Lazy):
    """As ImageFolder of torchvision: a picture and the number of its class."""

    def __getitem__(self, row):
        self.asked.append(row)
        return Image.new("RGB", (4, 4), (row, row, row)), row % 2


def test_of_pairs_of_a_picture_and_its_label_the_picture_is_taken_when_it_is_asked_for():
    folder = Labeled()
    assert not is_table(folder)
    pictures = Pictures(folder)
    assert len(folder.asked) == 1
    assert pictures[3].getpixel((0, 0)) == (3, 3, 3)
    tensors = [(torch.zeros(3, 4, 4), 1), (torch.ones(3, 4, 4), torch.tensor(0))]
    for pairs in (list(map(folder.__getitem__, range(3))), tensors, [("a.png", 0), ("b.png", "cat")]):
        assert not is_table(pairs)
        assert Pictures(pairs)[1] is pairs[1][0]


def test_rows_of_a_table_are_no_labeled_pictures():
    for table in ([(1.0, 2.0), (3.0, 4.0)], [["a.png", "b"], ["c.png", "d"]], [(np.zeros(3), 0)]):
        assert is_table(table)


STORED = [{"bytes": b"abc", "path": "a.png"}, {"bytes": None, "path": "b.png"}, {"path": "c.png"}, {"bytes": b"d"}]


@pytest.mark.parametrize("hold", [list, pd.Series, lambda rows: pd.DataFrame({"image": rows})])
def test_cells_as_hugging_face_stores_them_are_their_file(hold):
    assert not is_table(hold(STORED))
    pictures = Pictures(hold(STORED))
    assert [pictures[row] for row in range(4)] == [b"abc", "b.png", "c.png", b"d"]


def test_a_mapping_with_more_than_a_file_is_named_with_its_keys():
    rows = [{"image": IMAGE, "label": 1}]
    assert not is_table(rows)
    with pytest.raises(ImageReadError, match="a dict of 'image', 'label'; pass the pictures alone"):
        PictureReader(4, 4).read(Pictures(rows)[0])


def test_open_files_are_pictures():
    for files in ([io.BytesIO(b"abc"), io.BytesIO()], np.array([io.BytesIO(), "a.png"], dtype=object)):
        assert not is_table(files)
        assert Pictures(files)[0] is files[0]


class PolarsSeries:
    """What is asked of a Series of polars, which is not installed for tests."""

    def __init__(self, values, dtype="String"):
        self.values, self.shape = values, (len(values),)
        self.dtype = PolarsType(dtype)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, row):
        return self.values[row]

    def to_frame(self):
        return PolarsFrame([self])


class PolarsType:
    def __init__(self, name):
        self.name = name

    def is_numeric(self):
        return self.name == "Float64"


class PolarsFrame:
    def __init__(self, columns):
        self.columns = columns
        self.shape = (len(columns[0]), len(columns))
        self.dtypes = [column.dtype for column in columns]

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, row):
        return PolarsFrame([PolarsSeries([column[row]]) for column in self.columns])

    def get_columns(self):
        return self.columns

    def to_series(self, column):
        return self.columns[column]


def test_a_column_of_polars_is_what_stands_in_it():
    column = PolarsSeries(["a.png", "b.png"])
    for pictures in (column, column.to_frame()):
        assert not is_table(pictures)
        assert [Pictures(pictures)[row] for row in range(2)] == ["a.png", "b.png"]
        assert not Pictures(pictures).is_lazy
    numbers = PolarsSeries([1.0, 2.0], "Float64")
    for table in (numbers, numbers.to_frame(), PolarsFrame([column, column])):
        assert is_table(table)


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ((path for path in ["a.png"]), "a generator, which can be read once; make it a list"),
        (map(str, ["a.png"]), "a map, which can be read once"),
        ({"a.png": "a dog"}, "a dict; pass its values or its keys"),
        ({"a.png", "b.png"}, "a set, whose order means nothing"),
        (io.BytesIO(b"abc"), "wrap it in a list"),
        (torch.utils.data.DataLoader(["a.png"]), "got DataLoader; pass its dataset"),
    ],
)
def test_what_is_no_sequence_is_refused_with_what_to_pass(container, message):
    assert not is_table(container)
    with pytest.raises(TypeError, match=message):
        Pictures(container)
    with pytest.raises(TypeError, match=message):
        FullNetworkEmbedding("resnet18", weights=None).fit(container)
    with pytest.raises(TypeError, match=message):
        ImageCNNEncoder("resnet18", weights=None).fit(container)


@pytest.mark.parametrize("one", ["a.png", b"abc", IMAGE])
def test_one_picture_is_no_sequence_of_pictures(one):
    with pytest.raises(TypeError, match="wrap it in a list"):
        Pictures(one)


def test_no_pictures_are_an_error():
    with pytest.raises(ValueError, match="at least one picture"):
        Pictures(np.zeros((0, 4, 4, 3)))


def test_reading_ahead_keeps_the_order_of_the_rows_and_reports_failures():
    def read(source):
        time.sleep(0.002 * (source % 3))
        if source == 5:
            raise ImageReadError("bad")
        return source * 10

    answers = list(read_ahead(read, Pictures(list(range(12))), [9, 5, 0, 11], 4, 3))
    assert answers == [(9, 90), (5, ReadFailure(5, "int: 5", "bad")), (0, 0), (11, 110)]


def test_reading_ahead_is_bounded_and_goes_on_while_the_caller_is_busy():
    started = []

    def read(source):
        started.append(source)
        return source

    answers = read_ahead(read, Pictures(list(range(100))), range(100), 2, 10)
    next(answers)
    time.sleep(0.1)
    assert 10 <= len(started) <= 12
    answers.close()
    assert threading.active_count() < 10


def test_errors_that_are_no_matter_of_pictures_are_not_swallowed():
    def read(source):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(read_ahead(read, Pictures([1, 2]), range(2), 1, 1))
