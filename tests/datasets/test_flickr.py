"""Flickr8k: both layouts, the split, and what is said about a folder that is not complete."""

import json

import pytest
from PIL import Image

from sklearn_mm.datasets import load_flickr8k

SPLIT_OF = {"a.jpg": "train", "b.jpg": "train", "c.jpg": "val", "d.jpg": "test", "e.jpg": "rest"}
LIST_NAMES = {"train": "trainImages", "val": "devImages", "test": "testImages"}


def _captions(name):
    return [f"{name[0]} dog runs .", f"{name[0]} Dog jumps\u2014high"]


def _write_images(folder, names=tuple(SPLIT_OF)):
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)


def _write_original(folder, image_folder="Flicker8k_Dataset", text_folder="."):
    _write_images(folder / image_folder)
    texts = folder / text_folder
    texts.mkdir(exist_ok=True)
    lines = [f"{name}#{i}\t{caption}" for name in SPLIT_OF for i, caption in enumerate(_captions(name))]
    lines.append("e.jpg.1#0\tnobody has this picture")
    (texts / "Flickr8k.token.txt").write_text("\n".join(reversed(lines)) + "\n", encoding="utf-8")
    for split, stem in LIST_NAMES.items():
        names = [name for name, its_split in SPLIT_OF.items() if its_split == split]
        (texts / f"Flickr_8k.{stem}.txt").write_text("\n".join(names) + "\n")
    return texts


def _write_json(folder, change=None):
    _write_images(folder / "images")
    rows = [{"file": name, "captions": _captions(name), "split": split} for name, split in SPLIT_OF.items()]
    if change is not None:
        rows = change(rows)
    (folder / "captions.json").write_text(json.dumps(rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("image_folder", "text_folder"),
    [
        ("Flicker8k_Dataset", "."),
        ("Flickr8k_Dataset/Flicker8k_Dataset", "Flickr8k_text"),
        ("images", "text"),
    ],
)
def test_the_original_layout_is_read(tmp_path, image_folder, text_folder):
    _write_original(tmp_path, image_folder, text_folder)
    data = load_flickr8k(tmp_path)
    assert data.images == [str(tmp_path / image_folder / name) for name in SPLIT_OF]
    assert [sorted(row) for row in data.captions] == [sorted(_captions(name)) for name in SPLIT_OF]
    assert data.split.tolist() == list(SPLIT_OF.values())
    assert "Hodosh" in data.DESCR


def test_both_layouts_hold_the_same(tmp_path):
    _write_original(tmp_path / "original", "images")
    _write_json(tmp_path / "json", lambda rows: rows[::-1])
    original, from_json = load_flickr8k(tmp_path / "original"), load_flickr8k(str(tmp_path / "json"))
    assert [sorted(row) for row in original.captions] == [sorted(row) for row in from_json.captions]
    assert original.split.tolist() == from_json.split.tolist()


@pytest.mark.parametrize("split", ["train", "val", "test", "rest"])
def test_a_split_is_selected(tmp_path, split):
    _write_json(tmp_path)
    data = load_flickr8k(tmp_path, split=split)
    assert set(data.split) == {split}
    assert len(data.images) == len(data.captions) == list(SPLIT_OF.values()).count(split)


def test_an_unknown_split_is_refused_before_any_reading(tmp_path):
    with pytest.raises(ValueError, match=r"'val'.*got 'dev'"):
        load_flickr8k(tmp_path / "nowhere", split="dev")


def test_an_empty_split_says_what_there_is(tmp_path):
    _write_json(tmp_path, lambda rows: rows[:2])
    with pytest.raises(ValueError, match=r"split='test'.*'train': 2"):
        load_flickr8k(tmp_path, split="test")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        load_flickr8k(tmp_path / "nowhere")


def test_missing_captions_say_what_was_looked_for_and_where(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no captions in .*captions\.json, Flickr8k\.token\.txt"):
        load_flickr8k(tmp_path)


def test_missing_pictures_say_what_was_looked_for(tmp_path):
    _write_json(tmp_path)
    (tmp_path / "images").rename(tmp_path / "pics")
    with pytest.raises(FileNotFoundError, match=r"no folder of pictures in .*Flicker8k_Dataset.*images"):
        load_flickr8k(tmp_path)


def test_a_missing_list_of_the_split_is_named(tmp_path):
    texts = _write_original(tmp_path)
    (texts / "Flickr_8k.devImages.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"list of the val pictures.*Flickr_8k\.devImages\.txt"):
        load_flickr8k(tmp_path)


def test_a_missing_picture_of_the_split_is_an_error_and_one_of_no_split_is_left_out(tmp_path):
    _write_json(tmp_path)
    (tmp_path / "images" / "e.jpg").unlink()
    assert len(load_flickr8k(tmp_path).images) == 4
    (tmp_path / "images" / "d.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 pictures.*d\.jpg"):
        load_flickr8k(tmp_path)


@pytest.mark.parametrize("line", ["a.jpg#0 no tab here", "a.jpg\tno number", "a.jpg#0\t "])
def test_a_malformed_line_of_the_token_file_is_named(tmp_path, line):
    texts = _write_original(tmp_path)
    with (texts / "Flickr8k.token.txt").open("a", encoding="utf-8") as token:
        token.write(line + "\n")
    with pytest.raises(ValueError, match=r"Flickr8k\.token\.txt, line 12"):
        load_flickr8k(tmp_path)


def test_a_listed_picture_without_captions_is_named(tmp_path):
    texts = _write_original(tmp_path)
    with (texts / "Flickr_8k.testImages.txt").open("a") as names:
        names.write("z.jpg\n")
    with pytest.raises(ValueError, match=r"z\.jpg is in the test list, but has no captions"):
        load_flickr8k(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: {"rows": rows}, "list of pictures, got dict"),
        (lambda rows: [*rows[:1], "b.jpg"], "entry 1, got 'b.jpg'"),
        (lambda rows: [{**rows[0], "captions": []}], "entry 0"),
        (lambda rows: [{**rows[0], "captions": "one text"}], "entry 0"),
        (lambda rows: [{**rows[0], "split": "dev"}], "split of .* entry 0, got 'dev'"),
    ],
)
def test_a_malformed_captions_json_is_explained(tmp_path, change, message):
    _write_json(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        load_flickr8k(tmp_path)


def test_a_captions_json_that_is_no_json_is_named(tmp_path):
    _write_json(tmp_path)
    (tmp_path / "captions.json").write_text("[{")
    with pytest.raises(ValueError, match=r"captions\.json is no JSON"):
        load_flickr8k(tmp_path)
