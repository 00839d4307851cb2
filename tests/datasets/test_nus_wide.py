"""NUS-WIDE: the official lists, the tags that give the answer away, and what is said about files that are wrong."""

import numpy as np
import pytest
from PIL import Image

from sklearn_mm.datasets import _nus_wide, load_nus_wide

CONCEPTS = ["animal", "sky", "zebra"]
TAGS = ["nature", "sky", "film", "Zebra", "skyline"]
FILES = {
    "train": ["actor\\0001_2124494179.jpg", "zoo\\0002_1.jpg", "zoo\\0003_7.jpg"],
    "test": ["actor\\0004_9.jpg", "zoo\\0005_3.jpg"],
}
LABELS = {"train": [[0, 1, 0], [1, 0, 1], [0, 0, 0]], "test": [[1, 1, 0], [0, 0, 1]]}
MARKS = {"train": [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]], "test": [[0, 0, 1, 0, 0], [1, 1, 1, 1, 1]]}


@pytest.fixture
def folder(tmp_path):
    def write(name, lines):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))

    write("ConceptsList/Concepts81.txt", CONCEPTS)
    write("NUS_WID_Tags/TagList1k.txt", TAGS)
    for part in ("train", "test"):
        title = part.capitalize()
        write(f"ImageList/{title}Imagelist.txt", FILES[part])
        write(f"NUS_WID_Tags/{title}_Tags1k.dat", ["\t".join(map(str, row)) + "\t" for row in MARKS[part]])
        for concept, column in zip(CONCEPTS, zip(*LABELS[part], strict=True), strict=True):
            write(f"Groundtruth/TrainTestLabels/Labels_{concept}_{title}.txt", column)
        for file in FILES[part]:
            path = tmp_path / "Flickr" / file.replace("\\", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(path)
    return tmp_path


def test_lists_become_paths_labels_and_tags(folder):
    data = load_nus_wide(folder)
    names = [file.replace("\\", "/") for part in ("train", "test") for file in FILES[part]]
    assert data.images == [str(folder / "Flickr" / name) for name in names]
    assert data.split.tolist() == ["train"] * 3 + ["test"] * 2
    assert data.label_names.tolist() == CONCEPTS
    assert data.target.toarray().tolist() == LABELS["train"] + LABELS["test"]
    assert data.target.format == data.tags.format == "csr"
    assert data.target.dtype == data.tags.dtype == np.int64
    assert "Chua" in data.DESCR


def test_tags_that_are_called_as_a_concept_are_left_out_unless_asked_for(folder):
    data, with_all = load_nus_wide(folder), load_nus_wide(folder, drop_label_tags=False)
    assert data.tag_names.tolist() == ["nature", "film", "skyline"]
    assert data.tags.toarray().tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]
    assert with_all.tag_names.tolist() == TAGS
    assert with_all.tags.toarray().tolist() == MARKS["train"] + MARKS["test"]


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_needs_only_its_own_files(folder, part):
    other = "Test" if part == "train" else "Train"
    for path in list(folder.rglob(f"*{other}*")):
        if path.is_file():
            path.unlink()
    data = load_nus_wide(folder, split=part)
    assert data.target.toarray().tolist() == LABELS[part]
    assert set(data.split) == {part}
    with pytest.raises(FileNotFoundError, match=f"{other}Imagelist.txt"):
        load_nus_wide(folder)


def test_files_are_read_in_pieces(folder, monkeypatch):
    whole = load_nus_wide(folder, drop_label_tags=False)
    path = folder / "NUS_WID_Tags" / "Test_Tags1k.dat"
    path.write_text(path.read_text().rstrip("\n").replace("\n", "\r\n"))  # no end of line at the end, others of DOS
    for size in (1, 3, 10, 11, 64):
        monkeypatch.setattr(_nus_wide, "_READ_BYTES", size)
        pieces = load_nus_wide(folder, drop_label_tags=False)
        assert (pieces.tags != whole.tags).nnz == 0
        assert (pieces.target != whole.target).nnz == 0


def test_missing_pictures_raise_or_are_dropped_or_kept(folder):
    (folder / "Flickr" / "zoo" / "0002_1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 5 pictures .* zoo/0002_1\.jpg; missing_images='drop'"):
        load_nus_wide(folder)
    dropped = load_nus_wide(folder, missing_images="drop")
    assert dropped.target.toarray().tolist() == [LABELS["train"][0], LABELS["train"][2], *LABELS["test"]]
    assert len(dropped.images) == len(dropped.split) == dropped.tags.shape[0] == 4
    (folder / "Flickr").rename(folder / "photos")
    assert len(load_nus_wide(folder, missing_images="keep").images) == 5
    with pytest.raises(FileNotFoundError, match=r"no folder of pictures in .*; looked for Flickr, images"):
        load_nus_wide(folder, missing_images="drop")


@pytest.mark.parametrize(
    "name",
    [
        "ImageList/TrainImagelist.txt",
        "ConceptsList/Concepts81.txt",
        "Groundtruth/TrainTestLabels/Labels_sky_Test.txt",
        "NUS_WID_Tags/TagList1k.txt",
        "NUS_WID_Tags/Train_Tags1k.dat",
    ],
)
def test_a_missing_list_is_named_with_where_it_was_expected(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"looked for .*{name}"):
        load_nus_wide(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("NUS_WID_Tags/Train_Tags1k.dat", "0 1 0 0 0\n1 1\n", r"Train_Tags1k\.dat, line 2: expected 5 .* got 2 signs"),
        ("NUS_WID_Tags/Train_Tags1k.dat", "0 1 0 0 0\n" * 2, "Train_Tags1k.dat must have a line for each of the 3"),
        ("Groundtruth/TrainTestLabels/Labels_sky_Test.txt", "0\n2\n", r"Labels_sky_Test\.txt, line 2: expected 1 of"),
        ("Groundtruth/TrainTestLabels/Labels_sky_Test.txt", "0\n", "Labels_sky_Test.txt must have .* the 2 pictures"),
    ],
)
def test_a_malformed_list_is_named_with_its_line(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_nus_wide(folder)


def test_wrong_parameters_are_refused_before_any_reading(tmp_path):
    with pytest.raises(ValueError, match="split must be None or one of 'train', 'test', got 'val'"):
        load_nus_wide(tmp_path / "nowhere", split="val")
    with pytest.raises(ValueError, match="missing_images must be 'raise', 'drop' or 'keep', got 'skip'"):
        load_nus_wide(tmp_path / "nowhere", missing_images="skip")
    with pytest.raises(FileNotFoundError, match="the folder of NUS-WIDE, but .*nowhere is not a folder"):
        load_nus_wide(tmp_path / "nowhere")
