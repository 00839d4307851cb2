"""Fixtures that several parts of the test suite share."""

import re
from pathlib import Path

import pytest
from PIL import Image
from sklearn.utils import Bunch

from sklearn_mm.datasets import make_captioned_shapes


@pytest.fixture(autouse=True, scope="session")
def _private_data_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep prepared data sets out of the home folder, doctests included."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKLEARN_MM_DATA", str(tmp_path_factory.mktemp("sklearn_mm_data")))
        yield


@pytest.fixture(scope="session")
def shapes() -> Bunch:
    """Sixty captioned shapes; read only."""
    data = make_captioned_shapes(60, image_size=32, random_state=0)
    data.images.setflags(write=False)
    return data


@pytest.fixture
def photo_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory holds ``photos/``, as in the snippets of the README and the guides."""
    folder = tmp_path / "photos"
    folder.mkdir()
    drawn = make_captioned_shapes(80, image_size=64, random_state=0)
    for picture, (caption, *_) in zip(drawn.images, drawn.captions, strict=True):
        Image.fromarray(picture).save(folder / (re.sub(r"\W+", "_", caption) + ".png"))
    monkeypatch.chdir(tmp_path)
    return folder
