"""Flickr30k: its three layouts."""

import json

import pytest
from PIL import Image

from sklearn_mm.datasets import load_flickr30k

SPLIT_OF = {"100.jpg": "train", "101.jpg": "train", "102.jpg": "val", "103.jpg": "test", "104.jpg": "rest"}


def _captions(name):
    return [f"Two men of {name}.", f"A man, {name}!"]


def _write_images(folder, name="flickr30k-images"):
    (folder / name).mkdir(parents=True)
    for file in SPLIT_OF:
        Image.new("RGB", (4, 4)).save(folder / name / file)


def _write(folder, layout):
    _write_images(folder)
    if layout == "karpathy":
        pictures = [
            {"filename": file, "split": split, "sentences": [{"raw": text} for text in _captions(file)]}
            for file, split in SPLIT_OF.items()
        ]
        (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": pictures}))
    elif layout == "json":
        rows = [{"file": file, "captions": _captions(file), "split": split} for file, split in SPLIT_OF.items()]
        (folder / "captions.json").write_text(json.dumps(rows))
    else:
        lines = [f"{file}#{k}\t{text}" for file in SPLIT_OF for k, text in enumerate(_captions(file))]
        (folder / "results_20130124.token").write_text("\n".join(lines))
        for part in ("train", "val", "test"):
            names = [file for file, split in SPLIT_OF.items() if split == part]
            names = [name.removesuffix(".jpg") for name in names] if layout == "entities" else names
            (folder / f"{part}.txt").write_text("\n".join(names) + "\n")
    return folder


@pytest.mark.parametrize("layout", ["karpathy", "json", "tokens", "entities"])
def test_every_layout_holds_the_same(tmp_path, layout):
    data = load_flickr30k(_write(tmp_path, layout))
    assert data.images == [str(tmp_path / "flickr30k-images" / file) for file in SPLIT_OF]
    assert data.captions == [_captions(file) for file in SPLIT_OF]
    assert data.split.tolist() == list(SPLIT_OF.values())
    assert "Young" in data.DESCR
    assert load_flickr30k(tmp_path, split="test").captions == data.captions[3:4]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="the folder of Flickr30k"):
        load_flickr30k(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no captions in .*dataset_flickr30k\.json, .*results_20130124\.token"):
        load_flickr30k(tmp_path)
    _write(tmp_path, "tokens")
    (tmp_path / "val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"list of the val pictures .*val\.txt"):
        load_flickr30k(tmp_path)
    with pytest.raises(ValueError, match="split must be None or one of"):
        load_flickr30k(tmp_path, split="dev")


def test_missing_pictures_are_named(tmp_path):
    _write(tmp_path, "karpathy")
    (tmp_path / "flickr30k-images" / "104.jpg").unlink()
    assert len(load_flickr30k(tmp_path).images) == 4  # of no split
    (tmp_path / "flickr30k-images" / "101.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 pictures .*101\.jpg"):
        load_flickr30k(tmp_path)
    (tmp_path / "flickr30k-images").rename(tmp_path / "photos")
    with pytest.raises(FileNotFoundError, match="no folder of pictures .*flickr30k-images, flickr30k_images"):
        load_flickr30k(tmp_path)
