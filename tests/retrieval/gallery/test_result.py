"""What was found, as a table and as pictures."""

import base64
import datetime
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sklearn_mm.retrieval import Gallery, SearchResult


@pytest.fixture
def pictures(toys, tmp_path):
    """Three red, green and blue pictures in files, with features."""
    paths = [tmp_path / f"{name}.png" for name in ("red", "green", "<blue>")]
    for path, colour in zip(paths, ((255, 0, 0), (0, 255, 0), (0, 0, 255)), strict=True):
        Image.new("RGB", (50, 40), colour).save(path)

    class OfPaths(type(toys.model)):
        def transform(self, X):
            return np.eye(6, dtype=np.float32)[[paths.index(path) for path in X]]

    return Gallery(OfPaths().fit(None)).add(paths, ids=["r", "g", "<b>"], metadata={"note": ["1 & 2", "x", "y"]})


def test_rows_are_plain_enough_for_json(toys):
    rows = toys.search(["red", "blue box"], k=2).rows()
    assert json.loads(json.dumps(rows)) == rows
    assert [row["rank"] for row in rows] == [0, 1, 0, 1]
    assert list(toys.search("red", k=3)) == toys.search("red", k=3).rows()


def test_times_of_the_metadata_are_times(word_ranker):
    day = pd.Timestamp("2026-02-03 04:05")
    gallery = Gallery(word_ranker).add(
        np.eye(6)[:1], ids=["a"], metadata=pd.DataFrame({"day": [day], "gap": [day - day]})
    )
    (row,) = gallery.search("red").rows()
    assert (row["day"], row["gap"]) == (datetime.datetime(2026, 2, 3, 4, 5), datetime.timedelta(0))


def test_metadata_named_as_our_own_columns_keeps_apart(word_ranker):
    gallery = Gallery(word_ranker).add(np.eye(6)[:2], ids=["a", "b"], metadata={"id": [7, 8], "score": [0.1, 0.2]})
    found = gallery.search("red", k=1, where="id == 7")
    assert found.rows()[0] | {"score": 0} == {
        "id": "a", "score": 0, "rank": 0, "metadata_id": 7, "metadata_score": 0.1,
    }  # fmt: skip
    assert repr(found).splitlines()[0].split() == ["rank", "score", "id", "metadata_id", "metadata_score"]


def test_a_long_table_is_cut_where_it_is_shown():
    ids = [f"a/very/long/path/to/a/picture/number/{row:05}.jpg" for row in range(30)]
    text = repr(SearchResult(["a", "b"], [10, 20], ids, np.arange(30.0), {}, ids, several=True))
    assert len(text.splitlines()) == 22
    assert text.endswith("... 10 more rows")
    assert max(map(len, text.splitlines())) < 80


def test_what_was_found_is_drawn_a_row_for_each_query(pictures):
    plt = pytest.importorskip("matplotlib.pyplot")
    display = pictures.search(["red dot", "green"], k=2).show()
    assert display.axes_.shape == (2, 3)
    assert display.axes_[1, 1].images[0].get_array()[0, 0].tolist() == [0, 255, 0]
    plt.close(display.figure_)
    few = pictures.search(["red dot", "green"], k=3, min_score=0.5)
    assert few.counts == [1, 1]
    plt.close(few.show().figure_)


def test_what_cannot_be_drawn_says_why(toys):
    with pytest.raises(ValueError, match="files of 3 pictures are not known, the first is 'red-dot'"):
        toys.search("red dot", k=3).show()
    with pytest.raises(ValueError, match="nothing was found"):
        toys.search("red", min_score=9).show()


def test_a_notebook_shows_small_pictures_and_nothing_is_taken_for_html(pictures, tmp_path):
    found = pictures.search(["<i> blue", "red"], k=2, where=[True, False, True])
    text = found._repr_html_()
    assert "&lt;i&gt; blue" in text
    assert "<i>" not in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text.replace("<b>&lt;i&gt; blue", "").replace("<b>red", "")
    shown = [Image.open(io.BytesIO(base64.b64decode(each))) for each in re.findall('base64,([^"]+)', text)]
    assert [each.size for each in shown] == [(128, 128)] * 4
    assert min(shown[0].getpixel((5, 5))) < 10 < 200 < shown[0].getpixel((5, 5))[2]
    (tmp_path / "red.png").write_bytes(b"")
    assert "cannot be read" in found._repr_html_()
    assert "nothing found" in pictures.search("red", min_score=9)._repr_html_()


def test_pictures_without_files_are_named_in_a_notebook(toys):
    assert toys.search("red dot", k=3)._repr_html_().count("no file known") == 3
