"""Files as people have them: tables of Kaggle, byte order marks, odd breaks of lines, a part of the pictures, macOS."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sklearn_mm.datasets import (
    load_coco_captions,
    load_coco_multilabel,
    load_flickr8k,
    load_flickr30k,
    load_nus_wide,
)

BOM = "\ufeff"
ODD_BREAKS = "one\u2028two\u0085three\x0cfour\x0bfive\x1csix"  # str.splitlines ends a line at each
LISTS_8K = {"train": "trainImages", "val": "devImages", "test": "testImages"}


def _pictures(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)


def _lists(folder, split_of, names=LISTS_8K, template="Flickr_8k.{}.txt"):
    for split, stem in names.items():
        own = [f"{name}\n" for name, its_split in split_of.items() if its_split == split]
        (folder / template.format(stem)).write_text("".join(own), encoding="utf-8")


def _tokens_8k(folder, captions, split_of, encoding="utf-8"):
    """Write the original layout of Flickr8k."""
    _pictures(folder / "images", *captions)
    lines = [f"{name}#{k}\t{text}\n" for name, own in captions.items() for k, text in enumerate(own)]
    (folder / "Flickr8k.token.txt").write_text("".join(lines), encoding=encoding, newline="")
    _lists(folder, split_of)
    return folder


# Tables -----------------------------------------------------------------------------------------------------------

ROWS = '1.jpg,{0}A dog .\n1.jpg,{1}"A dog , a ""big"" one"\n2.jpg,{0}no quotes, yet a comma\n'
BARS = '1.jpg| 0| A dog .\n1.jpg| 1   A dog , a "big" one\n2.jpg| 0| no quotes, yet a comma\n'
TABLES = {
    "Flickr8k": "image,caption\n" + ROWS.format("", ""),
    "Flickr8k with a byte order mark": (BOM + "image,caption\n" + ROWS.format("", "")).replace("\n", "\r\n"),
    "Flickr30k": "image_name,comment_number,comment\n" + ROWS.format("0,", "1,"),
    "Flickr30k with bars": "image_name| comment_number| comment\n" + BARS,
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize(
    ("load", "file", "pictures"),
    [
        (load_flickr8k, "captions.txt", "Images"),
        (load_flickr30k, "captions.txt", "Images"),
        (load_flickr30k, "results.csv", "flickr30k_images"),
        (load_flickr30k, "flickr30k_images/results.csv", "flickr30k_images/flickr30k_images"),
    ],
)
def test_a_table_of_kaggle_is_read_its_broken_row_too(tmp_path, table, load, file, pictures):
    _pictures(tmp_path / pictures, "1.jpg", "2.jpg")
    (tmp_path / file).write_text(table, encoding="utf-8", newline="")
    data = load(tmp_path)
    assert data.images == [str(tmp_path / pictures / name) for name in ("1.jpg", "2.jpg")]
    assert data.captions == [["A dog .", 'A dog , a "big" one'], ["no quotes, yet a comma"]]
    assert data.split.tolist() == ["rest", "rest"]
    with pytest.raises(FileNotFoundError, match="list of the test pictures"):
        load(tmp_path, split="test")
    (tmp_path / pictures / "2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 pictures .* 2\.jpg; missing_images='drop' leaves them out"):
        load(tmp_path)


def test_a_table_takes_the_lists_that_lie_beside_it(tmp_path):
    _pictures(tmp_path / "Images", "1.jpg", "2.jpg")
    (tmp_path / "captions.txt").write_text(TABLES["Flickr8k"])
    _lists(tmp_path, {"1.jpg": "train", "2.jpg": "test"})
    assert load_flickr8k(tmp_path).split.tolist() == ["train", "test"]
    assert load_flickr8k(tmp_path, split="test").captions == [["no quotes, yet a comma"]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("1.jpg,A dog\n", r"captions\.txt, line 1: expected names of columns, such as 'image,caption'"),
        ("image,caption\n1.jpg,A dog\n\n2.jpg\n", r"captions\.txt, line 4: expected 'image,caption', got '2\.jpg'"),
        ("image,caption\n1.jpg,\n", r"captions\.txt, line 2: expected 'image,caption'"),
        ('image,caption\n1.jpg,"A dog\n2.jpg,A cat\n', r"captions\.txt, line 2: unexpected end of data"),
        ("image_name| comment_number| comment\n1.jpg| A dog\n", r"captions\.txt, line 2: expected 'image_name\|"),
    ],
)
def test_a_malformed_table_is_named_with_its_line(tmp_path, table, message):
    _pictures(tmp_path / "Images", "1.jpg", "2.jpg")
    (tmp_path / "captions.txt").write_text(table)
    with pytest.raises(ValueError, match=message):
        load_flickr8k(tmp_path)


def test_karpathys_file_of_flickr8k_is_read(tmp_path):
    _pictures(tmp_path / "images", "1.jpg")
    entry = {"filename": "1.jpg", "split": "test", "sentences": [{"raw": "Two men talk."}]}
    (tmp_path / "dataset_flickr8k.json").write_text(BOM + json.dumps({"images": [entry]}), encoding="utf-8")
    assert load_flickr8k(tmp_path, split="test").captions == [["Two men talk."]]


# Bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_loses_no_caption(tmp_path, encoding):
    captions = {"1.jpg": ["a dog", "it barks"], "2.jpg": ["a cat"]}
    _tokens_8k(tmp_path, captions, dict.fromkeys(captions, "train"), encoding)
    assert load_flickr8k(tmp_path).captions == list(captions.values())


def test_a_caption_goes_on_behind_anything_but_the_end_of_its_line(tmp_path):
    captions = {"1.jpg": [ODD_BREAKS, "it barks"], "a b.jpg": [ODD_BREAKS]}
    _tokens_8k(tmp_path, captions, dict.fromkeys(captions, "train"))
    assert load_flickr8k(tmp_path).captions == list(captions.values())
    (tmp_path / "Flickr8k.token.txt").unlink()
    rows = [f"{name},{text}\n" for name, own in captions.items() for text in own]
    (tmp_path / "captions.txt").write_text("image,caption\n" + "".join(rows), encoding="utf-8", newline="")
    assert load_flickr8k(tmp_path).captions == list(captions.values())


def test_a_file_in_latin_1_is_named_with_its_line_and_read_where_it_says_so(tmp_path):
    captions = {"1.jpg": ["a dog"], "2.jpg": ["a château"]}
    _tokens_8k(tmp_path, captions, dict.fromkeys(captions, "train"), "latin-1")
    with pytest.raises(ValueError, match=r"token\.txt, line 2: byte 0xe2 is no utf-8; .* encoding='latin-1'"):
        load_flickr8k(tmp_path)
    assert load_flickr8k(tmp_path, encoding="latin-1").captions == list(captions.values())


def test_json_in_latin_1_is_named_with_its_line(tmp_path):
    (tmp_path / "captions.json").write_text('[\n{"file": "1.jpg", "captions": ["a château"]}]', encoding="latin-1")
    with pytest.raises(ValueError, match=r"captions\.json is no JSON: byte 0xe2 in line 2 is no utf-8"):
        load_flickr8k(tmp_path)


def test_a_picture_of_two_lists_is_named_with_its_line(tmp_path):
    _tokens_8k(tmp_path, {"1.jpg": ["a dog"], "2.jpg": ["a cat"]}, {"1.jpg": "train", "2.jpg": "val"})
    (tmp_path / "Flickr_8k.testImages.txt").write_text("\n1.jpg\n")
    with pytest.raises(ValueError, match=r"testImages\.txt, line 2: 1\.jpg is in the train list too"):
        load_flickr8k(tmp_path)


@pytest.mark.parametrize("caption", [None, "", " \n", 7])
def test_a_caption_that_is_null_absent_or_empty_is_named(tmp_path, caption):
    _pictures(tmp_path / "images", "1.jpg")
    path = tmp_path / "captions.json"
    path.write_text(json.dumps([{"file": "1.jpg", "captions": ["a dog"]}, {"file": "2.jpg", "captions": [caption]}]))
    with pytest.raises(ValueError, match=r"captions\.json: expected .* in entry 1"):
        load_flickr8k(tmp_path)
    path.rename(tmp_path / "other.json")
    entry = {"filename": "1.jpg", "split": "test", "sentences": [{"raw": "a dog"}, {"raw": caption}]}
    for load, name in ((load_flickr8k, "flickr8k"), (load_flickr30k, "flickr30k"), (load_coco_captions, "coco")):
        (tmp_path / f"dataset_{name}.json").write_text(json.dumps({"images": [entry]}))
        with pytest.raises(ValueError, match=rf"dataset_{name}\.json: expected .* 'raw' text in entry 0"):
            load(tmp_path)


# Spellings of names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_pictures_are_found_whatever_form_their_names_have(tmp_path, listed, stored):
    name, other = (unicodedata.normalize(form, "château é.jpg") for form in (listed, stored))
    _tokens_8k(tmp_path, {other: ["a castle"], "2.jpg": ["a cat"]}, {other: "train", "2.jpg": "test"})
    (tmp_path / "Flickr8k.token.txt").write_text(f"{name}#0\ta castle\n2.jpg#0\ta cat\n", encoding="utf-8")
    data = load_flickr8k(tmp_path, split="train")
    assert data.images == [str(tmp_path / "images" / other)]
    assert Path(data.images[0]).is_file()


# A part of the pictures -------------------------------------------------------------------------------------------


def _flickr8k(folder):
    split_of = {"1.jpg": "train", "2.jpg": "train", "3.jpg": "test", "4.jpg": "test"}
    _tokens_8k(folder, {name: [f"of {name}"] for name in split_of}, split_of)
    return [folder / "images" / name for name in split_of]


def _flickr30k(folder):
    split_of = {"1.jpg": "train", "2.jpg": "train", "3.jpg": "test", "4.jpg": "test"}
    _pictures(folder / "images", *split_of)
    entries = [{"filename": name, "split": split, "sentences": [{"raw": name}]} for name, split in split_of.items()]
    (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": entries}))
    return [folder / "images" / name for name in split_of]


def _karpathy(folder):
    entries = []
    for number, (part, split) in enumerate([("train", "train"), ("train", "train"), ("val", "test"), ("val", "test")]):
        place, name = f"{part}2014", f"COCO_{part}2014_{number:012}.jpg"
        _pictures(folder / place, name)
        entries.append({"filepath": place, "filename": name, "split": split, "sentences": [{"raw": name}]})
    (folder / "dataset_coco.json").write_text(json.dumps({"images": entries}))
    return [folder / entry["filepath"] / entry["filename"] for entry in entries]


def _coco(folder, categories=({"id": 1, "name": "dog"}, {"id": 2, "name": "cat"})):
    (folder / "annotations").mkdir()
    paths = []
    for part, numbers in (("train", (1, 2)), ("val", (3, 4))):
        names = {number: f"{number:012}.jpg" for number in numbers}
        _pictures(folder / f"{part}2014", *names.values())
        content = {
            "images": [{"id": number, "file_name": name} for number, name in names.items()],
            "annotations": [{"image_id": number, "caption": "a", "category_id": 1 + number % 2} for number in numbers],
            "categories": list(categories),
        }
        for kind in ("captions", "instances"):
            (folder / "annotations" / f"{kind}_{part}2014.json").write_text(json.dumps(content))
        paths += [folder / f"{part}2014" / name for name in names.values()]
    return paths


def _nus_wide(folder):
    def write(name, text, encoding="utf-8"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding=encoding)

    write("ConceptsList/Concepts81.txt", "sky\n")
    write("NUS_WID_Tags/TagList1k.txt", "nature\ncafé\n")
    for part, names in (("Train", ("1.jpg", "2.jpg")), ("Test", ("3.jpg", "4.jpg"))):
        _pictures(folder / "Flickr" / "a b", *names)
        write(f"ImageList/{part}Imagelist.txt", "".join(f"a b\\{name}\n" for name in names))
        write(f"NUS_WID_Tags/{part}_Tags1k.dat", "0 1\n1 0\n")
        write(f"Groundtruth/TrainTestLabels/Labels_sky_{part}.txt", "0\n1\n")
    return [folder / "Flickr" / "a b" / f"{number}.jpg" for number in range(1, 5)]


SETS = {
    "Flickr8k": (_flickr8k, load_flickr8k, "test"),
    "Flickr30k": (_flickr30k, load_flickr30k, "test"),
    "Karpathy's COCO": (_karpathy, load_coco_captions, "test"),
    "COCO's captions": (_coco, load_coco_captions, "val"),
    "COCO's labels": (_coco, load_coco_multilabel, "val"),
    "NUS-WIDE": (_nus_wide, load_nus_wide, "test"),
}


@pytest.fixture(params=SETS.values(), ids=SETS)
def data_set(request):
    return request.param


def test_only_the_pictures_of_the_part_asked_for_have_to_be_there(tmp_path, data_set):
    write, load, split = data_set
    paths = write(tmp_path)
    for path in paths[:2]:
        path.unlink()
    for folder in {path.parent for path in paths[:2]} - {paths[2].parent}:
        folder.rmdir()
    assert load(tmp_path, split=split).images == [str(path) for path in paths[2:]]
    with pytest.raises(FileNotFoundError, match="2 of 4 pictures are missing .* missing_images='drop' leaves them out"):
        load(tmp_path)


def test_missing_pictures_are_dropped_with_what_belongs_to_them_or_not_looked_for(tmp_path, data_set):
    write, load, _ = data_set
    paths = write(tmp_path)
    whole = load(tmp_path)
    paths[1].unlink()
    dropped = load(tmp_path, missing_images="drop")
    assert dropped.images == [str(path) for path in (paths[0], *paths[2:])]
    assert dropped.split.tolist() == whole.split[[0, 2, 3]].tolist()
    if "captions" in whole:
        assert dropped.captions == [whole.captions[row] for row in (0, 2, 3)]
    else:
        np.testing.assert_array_equal(dropped.target.toarray(), whole.target.toarray()[[0, 2, 3]])
    assert load(tmp_path, missing_images="keep").images == whole.images
    for path in paths:
        path.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match="4 of 4 pictures are missing .* missing_images='keep' does without"):
        load(tmp_path, missing_images="drop")
    for folder in {path.parent for path in paths}:
        folder.rmdir()
    assert [path.rpartition("/")[2] for path in load(tmp_path, missing_images="keep").images] == [
        path.name for path in paths
    ]
    with pytest.raises(ValueError, match="missing_images must be 'raise', 'drop' or 'keep', got 'skip'"):
        load(tmp_path, missing_images="skip")


# COCO -------------------------------------------------------------------------------------------------------------


def test_karpathys_pictures_are_found_as_they_are_called_since_2017(tmp_path):
    paths = _karpathy(tmp_path)
    # of the pictures of val2014, most are of the training part since 2017
    parts = ["train2017", "val2017", "train2017", "train2017"]
    for path, part in zip(paths, parts, strict=True):
        (tmp_path / part).mkdir(exist_ok=True)
        path.rename(tmp_path / part / path.name[-16:])
    for folder in {path.parent for path in paths}:
        folder.rmdir()
    data = load_coco_captions(tmp_path, split="test")
    assert data.images == [str(tmp_path / "train2017" / path.name[-16:]) for path in paths[2:]]
    assert data.captions == [[path.name] for path in paths[2:]]
    assert len(load_coco_captions(tmp_path).images) == 4


def test_two_categories_of_one_name_are_one_label(tmp_path):
    _coco(tmp_path, [{"id": 1, "name": "dog"}, {"id": 2, "name": "dog"}, {"id": 0, "name": "animal"}])
    data = load_coco_multilabel(tmp_path)
    assert data.label_names.tolist() == ["animal", "dog"]
    assert data.target.toarray().tolist() == [[0, 1]] * 4


@pytest.mark.parametrize(
    ("kind", "key", "entry"),
    [
        ("captions", "annotations", {"image_id": 1, "caption": None}),
        ("captions", "annotations", {"image_id": 1}),
        ("captions", "annotations", {"image_id": 1, "caption": " "}),
        ("captions", "annotations", {"caption": "a dog"}),
        ("captions", "annotations", None),
        ("captions", "images", {"id": 1}),
        ("instances", "annotations", {"image_id": 1}),
        ("instances", "categories", {"id": 1, "name": None}),
    ],
)
def test_null_and_absent_fields_of_annotations_are_named(tmp_path, kind, key, entry):
    _coco(tmp_path)
    path = tmp_path / "annotations" / f"{kind}_train2014.json"
    content = json.loads(path.read_text())
    content[key] = [content[key][0], entry]
    path.write_text(json.dumps(content))
    load = load_coco_captions if kind == "captions" else load_coco_multilabel
    with pytest.raises(ValueError, match=rf"{kind}_train2014\.json: entry 1 of {key}: expected '"):
        load(tmp_path)


# NUS-WIDE ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
def test_a_list_of_tags_has_a_byte_order_mark_or_another_encoding(tmp_path, encoding):
    _nus_wide(tmp_path)
    path = tmp_path / "NUS_WID_Tags" / "TagList1k.txt"
    path.write_text("sky\ncafé\n", encoding=encoding)
    if encoding == "latin-1":
        with pytest.raises(ValueError, match=r"TagList1k\.txt, line 2: byte 0xe9 is no utf-8; .* encoding='latin-1'"):
            load_nus_wide(tmp_path)
    data = load_nus_wide(tmp_path, encoding=encoding)
    assert data.tag_names.tolist() == ["café"]  # the concept "sky" was told for one


def test_marks_may_begin_with_a_byte_order_mark(tmp_path):
    _nus_wide(tmp_path)
    path = tmp_path / "NUS_WID_Tags" / "Train_Tags1k.dat"
    path.write_text(BOM + path.read_text(), encoding="utf-8")
    assert load_nus_wide(tmp_path, split="train").tags.toarray().tolist() == [[0, 1], [1, 0]]


def test_empty_lines_count_where_a_line_is_named(tmp_path):
    _nus_wide(tmp_path)
    path = tmp_path / "NUS_WID_Tags" / "Train_Tags1k.dat"
    path.write_text("0 1\n\n \t\n1 2\n")
    with pytest.raises(ValueError, match=r"Train_Tags1k\.dat, line 4: expected 2 of 0 and 1, got 2 signs: 12"):
        load_nus_wide(tmp_path)
