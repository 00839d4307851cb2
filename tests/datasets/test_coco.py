"""COCO: objects as labels, captions by both kinds of files, and what is said about a folder that is not complete."""

import json

import numpy as np
import pytest
from PIL import Image

from sklearn_mm.datasets import load_coco_captions, load_coco_multilabel

CATEGORIES = [{"id": 64, "name": "potted plant"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
PARTS = {"train": (9, 25, 30), "val": (42, 73)}
OBJECTS = {9: [1, 18, 1], 25: [], 30: [64], 42: [18], 73: [1, 64]}  # a kind may be marked several times
KARPATHY = {9: "train", 25: "train", 30: "train", 42: "restval", 73: "test"}


def _file(number, part, year):
    return f"COCO_{part}2014_{number:012}.jpg" if year == 2014 else f"{number:012}.jpg"


def _write(folder, year=2014, images=".", parts=tuple(PARTS)):
    (folder / "annotations").mkdir(exist_ok=True)
    for part in parts:
        numbers = PARTS[part]
        pictures = folder / images / f"{part}{year}"
        pictures.mkdir(parents=True)
        for number in numbers:
            Image.new("RGB", (4, 4)).save(pictures / _file(number, part, year))
        listed = [{"id": number, "file_name": _file(number, part, year)} for number in reversed(numbers)]
        objects = [{"image_id": number, "category_id": kind} for number in numbers for kind in OBJECTS[number]]
        captions = [{"image_id": number, "caption": f"{k} of {number}.\n"} for k in range(2) for number in numbers]
        for kind, annotations in (("instances", objects), ("captions", captions)):
            content = {"images": listed, "annotations": annotations, "categories": CATEGORIES}
            (folder / "annotations" / f"{kind}_{part}{year}.json").write_text(json.dumps(content))
    return folder


def _write_karpathy(folder, change=None):
    pictures = []
    for number, split in KARPATHY.items():
        part = next(part for part, numbers in PARTS.items() if number in numbers)
        pictures.append(
            {
                "filepath": f"{part}2014",
                "filename": _file(number, part, 2014),
                "split": split,
                "sentences": [{"raw": f"One of {number}.", "tokens": []}, {"raw": f"Another of {number}."}],
            }
        )
    content = {"images": pictures, "dataset": "coco"}
    (folder / "dataset_coco.json").write_text(json.dumps(change(content) if change else content))


@pytest.mark.parametrize(("year", "images"), [(2014, "."), (2014, "images"), (2017, ".")])
def test_objects_become_labels_each_once(tmp_path, year, images):
    data = load_coco_multilabel(_write(tmp_path, year, images), year=year)
    assert data.label_names.tolist() == ["person", "dog", "potted plant"]
    assert data.target.toarray().tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 1]]
    assert (data.target.format, data.target.dtype) == ("csr", np.int64)
    assert data.split.tolist() == ["train"] * 3 + ["val"] * 2
    truth = [
        str(tmp_path / images / f"{part}{year}" / _file(number, part, year))
        for part, numbers in PARTS.items()
        for number in numbers
    ]
    assert data.images == truth
    assert "captions" not in data
    assert "Lin" in data.DESCR


def test_captions_of_the_official_files_are_read(tmp_path):
    data = load_coco_captions(_write(tmp_path))
    assert data.captions == [[f"0 of {number}.", f"1 of {number}."] for numbers in PARTS.values() for number in numbers]
    assert data.split.tolist() == ["train"] * 3 + ["val"] * 2
    assert load_coco_captions(tmp_path, split="val").captions == data.captions[3:]


def test_karpathys_split_is_preferred_where_it_is_there(tmp_path):
    _write_karpathy(_write(tmp_path))
    data = load_coco_captions(tmp_path)
    assert data.split.tolist() == list(KARPATHY.values())
    assert data.captions[4] == ["One of 73.", "Another of 73."]
    assert load_coco_captions(tmp_path, split="restval").images == data.images[3:4]
    with pytest.raises(FileNotFoundError, match=r"captions_train2017\.json"):
        load_coco_captions(tmp_path, year=2017)


def test_one_part_may_be_there_alone(tmp_path):
    _write(tmp_path, 2017, parts=["val"])
    assert load_coco_multilabel(tmp_path, year=2017, split="val").target.shape == (2, 3)
    assert len(load_coco_captions(tmp_path, year=2017, split="val").captions) == 2
    for load, kind in ((load_coco_multilabel, "instances"), (load_coco_captions, "captions")):
        with pytest.raises(FileNotFoundError, match=rf"{kind}_train2017\.json; .* alone, pass split='val'"):
            load(tmp_path, year=2017)


@pytest.mark.parametrize("load", [load_coco_captions, load_coco_multilabel])
def test_missing_pictures_and_folders_are_named(tmp_path, load):
    with pytest.raises(FileNotFoundError, match="the folder of COCO, but .*nowhere is not a folder"):
        load(tmp_path / "nowhere")
    _write(tmp_path)
    (tmp_path / "val2014" / _file(42, "val", 2014)).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 5 pictures .* val2014/COCO_val2014_000000000042\.jpg"):
        load(tmp_path)
    (tmp_path / "train2014").rename(tmp_path / "pictures")
    with pytest.raises(FileNotFoundError, match=r"no folder of pictures train2014 .* train2014, images/train2014"):
        load(tmp_path, split="train")


def test_wrong_parameters_are_refused(tmp_path):
    for load in (load_coco_captions, load_coco_multilabel):
        with pytest.raises(ValueError, match="year must be 2014 or 2017, got 2015"):
            load(tmp_path, year=2015)
        with pytest.raises(ValueError, match="split must be None or one of 'train'"):
            load(tmp_path, split="dev")
    with pytest.raises(ValueError, match="one of 'train', 'val', got 'test'"):
        load_coco_captions(tmp_path, split="test")  # without Karpathy's file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: [], "a list of 'images', got"),
        (lambda content: {"images": [{"filename": "a.jpg"}]}, "'raw' text in entry 0"),
        (lambda content: {"images": [content["images"][0] | {"sentences": ["a text"]}]}, "'raw' text in entry 0"),
        (lambda content: {"images": [content["images"][0] | {"split": "dev"}]}, "a split of .* entry 0, got 'dev'"),
    ],
)
def test_a_malformed_file_of_karpathys_is_explained(tmp_path, change, message):
    _write_karpathy(_write(tmp_path), change)
    with pytest.raises(ValueError, match=message):
        load_coco_captions(tmp_path)


def test_malformed_annotations_are_explained(tmp_path):
    _write(tmp_path)
    path = tmp_path / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"annotations": [{"image_id": 5, "category_id": 1}]}))
    with pytest.raises(ValueError, match="annotation 0 is of picture 5, which is not among the images"):
        load_coco_multilabel(tmp_path)
    path.write_text(json.dumps(content | {"annotations": [{"image_id": 9, "category_id": 7}]}))
    with pytest.raises(ValueError, match="annotation 0 is of category 7, which is not among the categories"):
        load_coco_multilabel(tmp_path)
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(ValueError, match="expected an object with annotations, categories, images"):
        load_coco_multilabel(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"instances_train2014\.json is no JSON"):
        load_coco_multilabel(tmp_path)
