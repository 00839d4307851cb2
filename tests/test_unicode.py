"""Texts that look alike are the same everywhere, whatever the form that Unicode has for them."""

import pickle
import unicodedata

import numpy as np
import pandas as pd
import pytest

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.features import TagVectorizer
from sklearn_mm.metrics import AnnotationScorer
from sklearn_mm.model_selection import find_leaks, group_captions
from sklearn_mm.retrieval import JointEmbeddingRanker

WORD = "for\u00eat"  # as most keyboards type it, and as macOS names files
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, WORD) for form in ("NFC", "NFD"))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype(np.float32)
SETTINGS = {"max_epochs": 2, "random_state": 0, "device": "cpu", "precision": "float32"}


def test_the_forms_differ_and_look_alike():
    assert COMPOSED != DECOMPOSED
    assert len(COMPOSED) + 1 == len(DECOMPOSED)


# Tags and labels --------------------------------------------------------------------------------------------------


def test_tags_are_one_unless_asked_otherwise():
    rows = [[COMPOSED], [DECOMPOSED], ["sea"]]
    vectorizer = TagVectorizer().fit(rows)
    assert vectorizer.tags_ == [COMPOSED, "sea"]
    assert vectorizer.transform([[DECOMPOSED]]).toarray().tolist() == [[1, 0]]
    assert TagVectorizer(exclude=[DECOMPOSED]).fit(rows).tags_ == ["sea"]
    assert len(TagVectorizer(unicode_form=None).fit(rows).tags_) == 3


def test_a_tag_vectorizer_pickled_before_there_were_forms_takes_tags_as_they_come():
    vectorizer = TagVectorizer(unicode_form=None).fit([[DECOMPOSED]])
    state = vectorizer.__getstate__()
    del state["unicode_form"]
    opened = TagVectorizer.__new__(TagVectorizer)
    opened.__setstate__(state)
    assert opened.unicode_form is None
    assert pickle.loads(pickle.dumps(opened)).transform([[COMPOSED], [DECOMPOSED]]).toarray().tolist() == [[0], [1]]


def _labels(form, kind):
    """Give the labels of rows, every third of which is a wood."""
    word = unicodedata.normalize(form, WORD)
    names = [word if row % 3 == 0 else "sea" for row in range(len(X))]
    if kind == "frame":
        return pd.DataFrame(
            {word: [name == word for name in names], "sea": [name == "sea" for name in names]}, dtype=float
        )
    return {
        "lists": [[name] for name in names],
        "single": names,
        "array": np.array(names),
        "objects": np.array(names, dtype=object),
    }[kind]


KINDS = ["lists", "single", "array", "objects", "frame"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fitted", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_labels_are_the_classes_they_look_like(kind, fitted, asked):
    annotator = MultiLabelAnnotator(**SETTINGS).fit(X, _labels(fitted, kind))
    assert sorted(annotator.classes_.tolist()) == [COMPOSED, "sea"]
    expected = annotator.score(X, _labels(fitted, kind))
    assert annotator.score(X, _labels(asked, kind)) == expected
    annotator.set_params(warm_start=True).fit(X, _labels(asked, kind))
    annotator.set_params(class_weight={unicodedata.normalize(asked, WORD): 2.0}).fit(X, _labels(fitted, kind))


def test_a_label_in_two_forms_is_one_class():
    for labels in ([[COMPOSED], [DECOMPOSED], ["sea"]] * 8, [COMPOSED, DECOMPOSED, "sea"] * 8):
        annotator = MultiLabelAnnotator(**SETTINGS).fit(X, labels)
        assert annotator.classes_.tolist() == [COMPOSED, "sea"]
    mixed = MultiLabelAnnotator(**SETTINGS).fit(X, [[COMPOSED, DECOMPOSED], ["sea"]] * 12)
    assert mixed.classes_.tolist() == [COMPOSED, "sea"]


def test_classes_of_an_older_model_are_found_by_labels_of_either_form():
    annotator = MultiLabelAnnotator(**SETTINGS).fit(X, _labels("NFC", "lists"))
    expected = annotator.score(X, _labels("NFC", "lists"))
    annotator.classes_ = np.array([DECOMPOSED, "sea"], dtype=object)
    assert [annotator.score(X, _labels(form, "lists")) for form in ("NFC", "NFD")] == [expected] * 2


@pytest.mark.parametrize("kind", ["lists", "frame"])
def test_scorers_find_the_classes_too(kind):
    annotator = MultiLabelAnnotator(**SETTINGS).fit(X, _labels("NFC", kind))
    composed, decomposed = (AnnotationScorer()(annotator, X, _labels(form, kind)) for form in ("NFC", "NFD"))
    assert decomposed == composed


def test_columns_of_tags_are_found_by_name():
    frame = pd.DataFrame(np.hstack([X, (X[:, :1] > 0)]), columns=[*"abcdef", DECOMPOSED])
    for tag_features in ([COMPOSED], f"{COMPOSED}.*"):
        MultiLabelAnnotator(tag_features=tag_features, **SETTINGS).fit(frame, _labels("NFC", "lists"))


# Captions ---------------------------------------------------------------------------------------------------------


def test_a_caption_leaks_in_either_form():
    report = find_leaks(["a"], [COMPOSED], ["b"], [DECOMPOSED])
    assert [tuple(leak) for leak in report.captions] == [(DECOMPOSED, 0, (0,))]
    assert find_leaks([COMPOSED], None, [DECOMPOSED], None).images[0].train_rows == (0,)


@pytest.mark.parametrize(("named", "stored"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_file_is_read_whatever_the_form_of_its_name(tmp_path, named, stored):
    for name in (stored, "copy"):
        (tmp_path / name).write_bytes(b"a picture")
    assert find_leaks([tmp_path / named], None, [tmp_path / "copy"], None)


def test_captions_of_an_image_are_grouped_whatever_the_form_of_its_name():
    images, captions = group_captions([f"{COMPOSED}.jpg", f"{DECOMPOSED}.jpg"], ["a dog", "it barks"])
    assert images == [f"{COMPOSED}.jpg"]
    assert captions == [["a dog", "it barks"]]


def test_a_ranker_has_each_wording_once_and_takes_it_for_no_negative():
    captions = [[COMPOSED, DECOMPOSED, "sea"], *([f"photo {row}", DECOMPOSED] for row in range(1, len(X)))]
    ranker = JointEmbeddingRanker(n_components=8, **SETTINGS).fit(X, captions)
    assert len(ranker.gallery_texts_) == len(X) + 1  # the wood, the sea, and the numbered photos
    scores = [ranker.search_images([form], k=3) for form in (COMPOSED, DECOMPOSED)]
    np.testing.assert_array_equal(scores[0], scores[1])
    alike = [[unicodedata.normalize("NFC", text) for text in own] for own in captions]
    same = JointEmbeddingRanker(n_components=8, **SETTINGS).fit(X, alike)
    np.testing.assert_array_equal(same.transform(X), ranker.transform(X))
