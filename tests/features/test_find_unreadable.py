import io

import numpy as np
import pytest
from PIL import Image

from sklearn_mm.features import find_unreadable


def encoded(kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 30, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A folder as archives from a Mac leave it, with a photo cut off and one in a rare format."""
    contents = {
        "._a.jpg": b"\0\5\26\7\0\2\0\0Mac OS X", "a.jpg": encoded("JPEG"), "b.jpg": encoded("JPEG")[:-300],
        "c.jpg": encoded("TGA"), "d.jpg": encoded("PNG"),
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return sorted(tmp_path.glob("*.jpg"))


def test_pictures_that_cannot_be_read_are_found_with_row_source_and_reason(folder):
    found = find_unreadable(folder)
    assert [(failure.row, failure.source) for failure in found] == [(row, repr(str(folder[row]))) for row in (0, 2, 3)]
    assert "not a picture" in found[0].reason
    assert "truncated" in found[1].reason


def test_headers_alone_tell_what_is_no_picture(folder):
    assert [failure.row for failure in find_unreadable(folder, decode=False)] == [0, 3]


def test_extra_formats_are_pictures_too(folder):
    assert [failure.row for failure in find_unreadable(folder, extra_formats=["TGA"], n_jobs=2)] == [0, 2]
    with pytest.raises(ValueError, match="extra_formats has 'TGB'"):
        find_unreadable(folder, extra_formats=["TGB"])


def test_a_bar_shows_how_far_it_is(folder, capsys):
    find_unreadable(folder, verbose=1)
    assert "5/5" in capsys.readouterr().err
