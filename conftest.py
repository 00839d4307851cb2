"""What the doctests of the package, the guides and the README find around them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

# Before MKL is loaded, for this process and those that it starts: on some processors a row times a matrix is another
# float by where the row stands in memory, and scikit-learn's checks compare more closely than that. Numbers recorded
# exactly are of MKL as it is.
if os.environ.get("SKLEARN_MM_GUARD") != "exact":
    os.environ.setdefault("MKL_CBWR", "AVX2")

import pytest
import torch
from PIL import Image

from sklearn_mm.datasets import make_captioned_shapes


@pytest.fixture(autouse=True, scope="session")
def _private_data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep prepared data sets out of the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKLEARN_MM_DATA", str(tmp_path_factory.mktemp("sklearn_mm_data")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _alike_on_every_cpu() -> Iterator[None]:
    """Let ``precision="auto"`` be float32: what tests compare is rounded alike then, with bfloat16 in the CPU or not.

    Those of bfloat16 ask for it by name. Other processes do not see this; what is compared with theirs says float32.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        yield


@pytest.fixture
def photo_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working directory with ``photos/*.jpg`` in it, each named as its caption says, and ``labels.csv``."""
    folder = tmp_path / "photos"
    folder.mkdir()
    drawn = make_captioned_shapes(24, image_size=64, captions_per_image=1, random_state=0)
    rows = ["image,labels,tags"]
    for picture, (caption,), own in zip(drawn.images, drawn.captions, drawn.target, strict=True):
        name = re.sub(r"\W+", "_", caption) + ".jpg"
        Image.fromarray(picture).save(folder / name)
        rows.append(f"{name},{'; '.join(drawn.label_names[own == 1])},{'; '.join(caption.split()[1:3])}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture(autouse=True)
def _guides_have_photos(request: pytest.FixtureRequest) -> None:
    """Run the snippets of .md and .rst files beside a folder of photos."""
    if request.path.suffix in {".md", ".rst"}:
        request.getfixturevalue("photo_folder")
