"""Galleries in folders: opened again, elsewhere, after an accident, and by the wrong model."""

import datetime
import json
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_mm import persistence
from sklearn_mm.exceptions import GalleryWarning
from sklearn_mm.index import ExactIndex, FaissIndex
from sklearn_mm.retrieval import Gallery

DAY = datetime.datetime(2026, 3, 1, 12)


@pytest.fixture
def gallery(fitted):
    ranker, features, _ = fitted
    metadata = {
        "year": np.arange(96),
        "share": np.where(np.arange(96) % 2, np.nan, 0.5),
        "city": ["Rome", None] * 48,
        "when": pd.date_range("2026-01-01", periods=96),
        "day": [DAY] * 96,
        "good": np.arange(96) % 3 == 0,
        "tags": [["a", "b"], []] * 48,
    }
    return Gallery(ranker).add(features, ids=[f"{row}.jpg" for row in range(96)], metadata=metadata)


def same(one, other):
    return repr(one.rows()) == repr(other.rows()) and one.scores.tobytes() == other.scores.tobytes()


@pytest.mark.parametrize("mmap", [True, False])
def test_a_gallery_opened_again_answers_alike_and_goes_on(gallery, fitted, tmp_path, mmap):
    gallery.save(tmp_path / "photos.gallery")
    again = Gallery.load(tmp_path / "photos.gallery", fitted[0], mmap=mmap)
    assert again.ids == gallery.ids
    for where in (None, "year > 50 and good", "city == 'Rome'"):
        assert same(gallery.search("a red dot", k=9, where=where), again.search("a red dot", k=9, where=where))
    row = again.search("a red dot", k=1, where="year == 4").rows()[0]
    assert (row["city"], row["when"], row["day"], row["tags"]) == (
        "Rome",
        datetime.datetime(2026, 1, 5),
        DAY,
        ["a", "b"],
    )
    pd.testing.assert_frame_equal(again.metadata, gallery.metadata)
    for each in (gallery, again):
        each.remove(["3.jpg", "70.jpg"]).add(fitted[1][:2], ids=["new", "newer"], metadata={"year": [1, 2]})
    again.save(tmp_path / "photos.gallery")  # over itself, with its vectors mapped from there
    third = Gallery.load(tmp_path / "photos.gallery", fitted[0], mmap=mmap)
    for each in (again, third):
        assert same(each.search("blue", k=96), gallery.search("blue", k=96))
    assert len(list((tmp_path / "photos.gallery").iterdir())) == 2


@pytest.mark.slow
def test_a_gallery_opens_in_a_fresh_process(gallery, fitted, tmp_path, forked):
    persistence.save(fitted[0], tmp_path / "model")
    joblib.dump(make_pipeline(FunctionTransformer(), fitted[0]), tmp_path / "model.joblib")
    gallery.save(tmp_path / "gallery")
    whole = Gallery(make_pipeline(FunctionTransformer(), fitted[0])).add(fitted[1], ids=gallery.ids)
    whole.save(tmp_path / "whole")
    code = (
        "import os, sys, joblib; from sklearn_mm import persistence; from sklearn_mm.retrieval import Gallery\n"
        "os.chdir(sys.argv[1])\n"
        "one = Gallery.load('gallery', persistence.load('model')).search('a red dot', k=5)\n"
        "two = Gallery.load('whole', joblib.load('model.joblib')).search('a red dot', k=5)\n"
        "print(one.ids == two.ids, *one.ids)"
    )
    _, (output,) = forked(code, tmp_path)
    assert output.split() == ["True", *gallery.search("a red dot", k=5).ids]


def test_another_model_is_refused_and_the_same_one_with_other_galleries_is_not(gallery, fitted, tmp_path):
    ranker, features, captions = fitted
    gallery.save(tmp_path / "gallery")
    other = clone(ranker).set_params(n_components=7).fit(features, captions)
    with pytest.raises(
        ValueError, match="holds the gallery of another model, a CorrelationRanker with the fingerprint"
    ):
        Gallery.load(tmp_path / "gallery", other)
    same_model = joblib.load(joblib.dump(ranker, tmp_path / "ranker")[0])
    same_model.set_gallery(images=features[:5], texts=["red"]).set_params(index=ExactIndex(), n_jobs=2)
    assert Gallery.load(tmp_path / "gallery", same_model).ids == gallery.ids


def test_a_model_that_cannot_be_looked_into_is_not_checked(word_ranker, tmp_path):
    word_ranker.file_ = open(tmp_path / "open", "w")  # noqa: PTH123, SIM115
    gallery = Gallery(word_ranker).add(np.eye(6), ids=range(6))
    with pytest.warns(GalleryWarning, match="WordRanker holds what cannot be told by its content"):
        gallery.save(tmp_path / "gallery")
    word_ranker.file_.close()
    assert Gallery.load(tmp_path / "gallery", word_ranker).ids == list(range(6))


@pytest.mark.parametrize("moment", ["metadata", "vectors", "facts", "rename"])
def test_what_is_half_written_leaves_the_old_one(gallery, fitted, tmp_path, monkeypatch, moment):
    folder = tmp_path / "gallery"
    gallery.save(folder)
    before = gallery.search("red", k=5)
    gallery.remove(gallery.ids[:40])

    def fail(*args, **kwargs):
        raise OSError("no space left")

    target = {
        "metadata": "pyarrow.parquet.write_table",
        "vectors": "sklearn_mm.index.ExactIndex.save",
        "facts": "json.dump",
        "rename": "pathlib.Path.replace",
    }[moment]
    with monkeypatch.context() as patched:
        patched.setattr(target, fail)
        with pytest.raises(OSError, match="no space left"):
            gallery.save(folder)
    assert same(Gallery.load(folder, fitted[0]).search("red", k=5), before)
    # what a killed process leaves is no harm either
    (folder / "generation-killed").mkdir()
    (folder / "gallery.json.generation-killed").write_text("{")
    assert len(Gallery.load(folder, fitted[0])) == 96
    gallery.save(folder)
    assert len(Gallery.load(folder, fitted[0])) == 56


def test_folders_that_hold_no_gallery_are_told(gallery, fitted, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere holds no gallery.*there is no such folder"):
        Gallery.load(tmp_path / "nowhere", fitted[0])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileNotFoundError, match=r"it has no gallery\.json"):
        Gallery.load(tmp_path / "other", fitted[0])
    with pytest.raises(FileExistsError, match="holds no gallery; remove it, or save to another folder"):
        gallery.save(tmp_path / "other")
    with pytest.raises(ValueError, match="folder must name a file or a folder"):
        gallery.save("")


def test_damage_and_later_versions_are_told(gallery, fitted, tmp_path):
    gallery.save(tmp_path / "gallery")
    facts = tmp_path / "gallery" / "gallery.json"
    known = json.loads(facts.read_text())
    vectors = tmp_path / "gallery" / known["generation"] / "vectors" / "vectors.npy"
    content = vectors.read_bytes()
    vectors.write_bytes(content[:-7])
    with pytest.raises(ValueError, match=r"vectors\.npy is missing or damaged: expected \d+ bytes, got \d+; copy"):
        Gallery.load(tmp_path / "gallery", fitted[0])
    vectors.write_bytes(content)
    facts.write_text(json.dumps(known | {"version": 2, "sklearn_mm": "9.1"}))
    with pytest.raises(ValueError, match=r"of version 2; this version .* open it with sklearn_mm 9\.1 or a later one"):
        Gallery.load(tmp_path / "gallery", fitted[0])
    facts.write_text("{")
    with pytest.raises(ValueError, match=r"gallery\.json is damaged"):
        Gallery.load(tmp_path / "gallery", fitted[0])


def test_an_empty_gallery_and_one_without_metadata_are_saved_too(fitted, tmp_path):
    ranker, features, _ = fitted
    Gallery(ranker).save(tmp_path / "gallery")
    gallery = Gallery.load(tmp_path / "gallery", ranker).add(features[:3], ids=[7, 8, 9])
    gallery.save(tmp_path / "gallery")
    assert Gallery.load(tmp_path / "gallery", ranker).search("red").ids == gallery.search("red").ids


def test_metadata_that_parquet_cannot_hold_is_named(fitted, tmp_path):
    ranker, features, _ = fitted
    gallery = Gallery(ranker).add(features[:2], ids=[1, 2], metadata={"mixed": ["a", 3]})
    with pytest.raises(ValueError, match="the column 'mixed' of the metadata holds what Parquet cannot"):
        gallery.save(tmp_path / "gallery")
    assert not (tmp_path / "gallery" / "gallery.json").exists()


@pytest.mark.parametrize("index", [lambda: ExactIndex(dtype="float16"), lambda: FaissIndex("Flat")])
def test_an_index_is_opened_with_its_gallery(fitted, tmp_path, index):
    if isinstance(index(), FaissIndex):
        pytest.importorskip("faiss")
    ranker, features, _ = fitted
    gallery = Gallery(ranker, index=index()).add(features, ids=range(96)).remove([5])
    gallery.save(tmp_path / "gallery")
    for given in (None, index()):
        again = Gallery.load(tmp_path / "gallery", ranker, index=given)
        assert same(again.search("red box", k=9), gallery.search("red box", k=9))
        assert len(again.add(features[:1], ids=[100])) == 96
    assert Gallery.load(tmp_path / "gallery", ranker, index=ExactIndex()).search("red box", k=1).ids


def test_without_pyarrow_saving_says_how_to_get_it(gallery, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'sklearn-mm\[gallery\]'"):
        gallery.save(tmp_path / "gallery")
    assert not (tmp_path / "gallery").exists()
