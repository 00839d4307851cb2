import pickle

import joblib
import numpy as np
import pytest
import torch

from sklearn_mm.index import ExactIndex, FaissIndex
from sklearn_mm.losses import SIMILARITIES
from sklearn_mm.retrieval._gallery import Gallery


@pytest.fixture
def gallery():
    rng = np.random.default_rng(0)
    embedding = np.abs(rng.normal(size=(50, 8))).astype(np.float32)
    return Gallery(embedding / np.linalg.norm(embedding, axis=1, keepdims=True), "cosine")


@pytest.mark.parametrize("similarity", ["cosine", "order"])
@pytest.mark.parametrize("query_is_image", [True, False])
def test_search_is_the_sorted_table_of_scores(gallery, similarity, query_is_image):
    gallery = Gallery(gallery.embedding, similarity)
    query = gallery.embedding[::10]
    table = gallery.scores(query, query_is_image=query_is_image)
    scores, indices = gallery.search(query, 5, query_is_image=query_is_image)
    np.testing.assert_array_equal(indices, np.argsort(-table, axis=1)[:, :5])
    np.testing.assert_allclose(scores, np.sort(table, axis=1)[:, ::-1][:, :5], rtol=1e-5)


def test_the_index_is_made_once_without_a_copy_and_not_pickled(gallery):
    size = len(pickle.dumps(gallery))
    first = gallery.search(gallery.embedding[:2], 3, query_is_image=True)
    index = gallery._index
    gallery.search(gallery.embedding[:2], 3, query_is_image=True)
    assert gallery._index is index
    assert any(np.shares_memory(part, gallery.embedding) for part in vars(index)["_parts"])
    assert len(pickle.dumps(gallery)) == size
    again = pickle.loads(pickle.dumps(gallery)).search(gallery.embedding[:2], 3, query_is_image=True)
    np.testing.assert_array_equal(first[1], again[1])


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_gallery_in_a_memory_map_answers_alike_and_is_not_copied(gallery, similarity, tmp_path):
    gallery = Gallery(gallery.embedding, similarity)
    joblib.dump(gallery, tmp_path / "gallery")
    mapped = joblib.load(tmp_path / "gallery", mmap_mode="r")
    assert not mapped.embedding.flags.writeable
    query = gallery.embedding[:3].copy()
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # torch warns once in a process
    try:
        for of_image in (True, False):
            expected = gallery.scores(query, query_is_image=of_image)
            np.testing.assert_array_equal(mapped.scores(query, query_is_image=of_image), expected)
    finally:
        torch.set_warn_always(before)


def test_items_that_are_not_there_are_never_found_and_the_others_keep_their_numbers(gallery):
    rows = np.arange(len(gallery)) * 2 + 1
    some = Gallery(gallery.embedding, "cosine", rows)
    query = gallery.embedding[:3]
    scores, indices = some.search(query, 2, query_is_image=True)
    expected_scores, expected = gallery.search(query, 2, query_is_image=True)
    np.testing.assert_array_equal(scores, expected_scores)
    np.testing.assert_array_equal(indices, rows[expected])


@pytest.fixture
def unit_vectors():
    rng = np.random.default_rng(0)
    rows = np.abs(rng.normal(size=(40, 6))).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("similarity", ["cosine", "order"])
@pytest.mark.parametrize("unreadable", [False, True])
def test_a_search_among_rows_finds_the_best_of_them(unit_vectors, similarity, unreadable):
    items, query = unit_vectors[:30], unit_vectors[30:]
    numbers = np.arange(0, 60, 2) if unreadable else np.arange(30)  # every second picture could not be read
    gallery = Gallery(items, similarity, numbers if unreadable else None)
    few = Gallery(items[5:20], similarity, numbers[5:20])
    truth = few.search(query, 4, query_is_image=True)
    mask = np.isin(np.arange(61 if unreadable else 30), numbers[5:20])
    for rows in (mask, numbers[5:20][::-1], [*numbers[5:20], *([9] if unreadable else [])]):  # none has number 9
        found = gallery.search(query, 4, query_is_image=True, rows=rows)
        np.testing.assert_array_equal(found[1], truth[1])
        np.testing.assert_allclose(found[0], truth[0], rtol=1e-6)
    assert gallery.search(query, None, query_is_image=True, rows=[4, 2])[1].shape == (10, 2)
    with pytest.raises(ValueError, match="k=3 is larger than the gallery, which has 2 items"):
        gallery.search(query, 3, query_is_image=True, rows=[4, 2])
    with pytest.raises(ValueError, match="which has 0 items"):
        gallery.search(query, None, query_is_image=True, rows=[])


@pytest.mark.parametrize("kind", [lambda: ExactIndex(dtype="float16"), lambda: FaissIndex("Flat")])
@pytest.mark.filterwarnings("ignore:builtin type [Ss]wig:DeprecationWarning")
def test_galleries_are_searched_by_the_index_they_are_given(unit_vectors, kind):
    index = kind()
    if isinstance(index, FaissIndex):
        pytest.importorskip("faiss")
    gallery = Gallery(unit_vectors, "cosine", index=index)
    truth = Gallery(unit_vectors, "cosine").search(unit_vectors[:5], 3, query_is_image=True, rows=range(1, 40, 2))
    found = gallery.search(unit_vectors[:5], 3, query_is_image=True, rows=range(1, 40, 2))
    np.testing.assert_array_equal(found[1], truth[1])
    np.testing.assert_allclose(found[0], truth[0], atol=1e-3)  # numbers of 16 bits
    assert len(index) == 0  # the parameter stays empty
