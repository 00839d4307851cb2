import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.images import Pictures, ReadFailure, is_table, read_ahead

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
