"""A folder of drawn pictures, and the command line as a function."""

import csv
from types import SimpleNamespace

import pytest
from PIL import Image

from sklearn_mm.cli import main
from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.persistence import save

pytest.importorskip("click")
pytest.importorskip("rich")


@pytest.fixture
def run(capsys):
    """Run a command in this process; return its exit code, what it wrote, and what it said."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return SimpleNamespace(code=code, out=written.out, err=written.err)

    return call


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Write pictures, a table with a row for each caption, and one of labels; read only."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "photos").mkdir()
    shapes = make_captioned_shapes(24, image_size=32, captions_per_image=2, random_state=0)
    names = [f"{row:02}.png" for row in range(24)]
    for picture, name in zip(shapes.images, names, strict=True):
        Image.fromarray(picture).save(folder / "photos" / name)
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "year"])
        for row, (name, captions) in enumerate(zip(names, shapes.captions, strict=True)):
            writer.writerows([name, caption, 2000 + row] for caption in captions)
    labels = [[str(shapes.label_names[column]) for column in row.nonzero()[0]] for row in shapes.target]
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "labels"])
        writer.writerows([name, ", ".join(own)] for name, own in zip(names, labels, strict=True))
    return folder


@pytest.fixture(scope="session")
def bare_model(drawn, tmp_path_factory):
    """Save a small embedding by itself, as a user of the library does."""
    embedding = FullNetworkEmbedding("resnet18", weights=None, image_size=32, layers="last")
    path = tmp_path_factory.mktemp("models") / "embedding"
    save(embedding.fit([str(drawn / "photos" / name) for name in ("00.png", "01.png", "02.png")]), path)
    return path
