import builtins
import pickle

import numpy as np
import pytest

from sklearn_mm.index import ExactIndex, FaissIndex

RELATIVE = 1e-5  # sums of products in float32

# From the bindings of faiss on Python 3.12 and later; until faiss builds with SWIG 4.4.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type [Ss]wig:DeprecationWarning")


@pytest.fixture
def vectors():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    return rng.normal(size=(500, 16)).astype(np.float32), rng.normal(size=(20, 16)).astype(np.float32)


def test_a_flat_index_answers_as_the_exact_one_does(vectors):
    items, queries = vectors
    scores, indices = FaissIndex().add(items[:200]).add(items[200:]).search(queries, 10)
    truth = ExactIndex().add(items).search(queries, 10)
    np.testing.assert_array_equal(indices, truth[1])
    np.testing.assert_allclose(scores, truth[0], rtol=RELATIVE)
    assert (scores.dtype, indices.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("factory", ["HNSW16", "IVF4,Flat"])
def test_approximate_indexes_find_most_neighbours(vectors, factory):
    items, queries = vectors
    found = FaissIndex(factory).add(items).search(queries, 10)[1]
    truth = ExactIndex().add(items).search(queries, 10)[1]
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
    assert shared > 0.3  # one of four cells is looked into


@pytest.mark.parametrize(
    ("factory", "more"),
    [
        ("IVF16,Flat", {"nprobe": 16}),
        ("PCA8,IVF16,Flat", {"nprobe": 16}),
        ("HNSW4", {"ef_search": 500}),
        ("IVF16_HNSW4,Flat", {"nprobe": 16, "ef_search": 64}),
    ],
)
def test_a_wider_search_finds_more(vectors, factory, more):
    items, queries = vectors
    narrow, wide = FaissIndex(factory).add(items), FaissIndex(factory, **more).add(items)
    few = pickle.loads(pickle.dumps(narrow)).search(queries, 10)[1]
    many = pickle.loads(pickle.dumps(wide)).search(queries, 10)[1]
    exact = FaissIndex(factory.partition(",")[0] + ",Flat" if factory.startswith("PCA") else "Flat").add(items)
    truth = exact.search(queries, 10)[1]
    shares = [np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)]) for found in (few, many)]
    assert shares[1] > max(shares[0], 0.95)
    for name, value in more.items():
        setattr(narrow, name, value)
    np.testing.assert_array_equal(narrow.search(queries, 10)[1], wide.search(queries, 10)[1])


@pytest.mark.parametrize(
    ("factory", "params", "message"),
    [
        ("Flat", {"nprobe": 2}, "nprobe=2, but factory='Flat' builds an index that has no such number"),
        ("IVF4,Flat", {"ef_search": 2}, "ef_search=2, but factory='IVF4,Flat' builds"),
        ("IVF4,Flat", {"nprobe": 0}, "nprobe must be an int of at least 1, or None, got 0"),
    ],
)
def test_parameters_of_a_search_that_an_index_lacks_are_named(vectors, factory, params, message):
    with pytest.raises(ValueError, match=message):
        FaissIndex(factory, **params).add(vectors[0])


def test_places_left_over_are_marked(vectors):
    items, queries = vectors
    scores, indices = FaissIndex("IVF4,Flat").add(items).search(queries, 500)
    assert (indices == -1).any(axis=1).all()
    np.testing.assert_array_equal(np.isneginf(scores), indices == -1)


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat"])
def test_a_pickled_index_answers_alike_and_goes_on(vectors, factory):
    items, queries = vectors
    index = FaissIndex(factory).add(items)
    copy = pickle.loads(pickle.dumps(index))
    for found, truth in zip(copy.search(queries, 5), index.search(queries, 5), strict=True):
        np.testing.assert_array_equal(found, truth)
    assert len(copy.add(items)) == 1000
    assert (len(index), index.n_components, copy.factory) == (500, 16, factory)


def test_an_empty_index_is_pickled_too():
    copy = pickle.loads(pickle.dumps(FaissIndex("HNSW16")))
    assert (len(copy), copy.n_components, copy.factory) == (0, None, "HNSW16")


def test_what_faiss_cannot_build_is_named(vectors):
    items, _ = vectors
    with pytest.raises(ValueError, match="cannot build factory='Flut' from 500 vectors of 16 components"):
        FaissIndex("Flut").add(items)
    with pytest.raises(ValueError, match="cannot build factory='IVF9,Flat' from 5 vectors"):
        FaissIndex("IVF9,Flat").add(items[:5])


def test_bad_input_is_named(vectors):
    items, queries = vectors
    index = FaissIndex().add(items)
    with pytest.raises(ValueError, match="k=501 is larger than the gallery"):
        index.search(queries, 501)
    with pytest.raises(ValueError, match="Q has 3 components, but the index holds vectors of 16"):
        index.search(queries[:, :3], 1)
    with pytest.raises(ValueError, match="X holds NaN"):
        index.add(np.full((1, 16), np.nan))


def test_without_faiss_the_way_to_it_is_told(monkeypatch):
    real_import = builtins.__import__

    def no_faiss(name, *args, **kwargs):
        if name == "faiss":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_faiss)
    with pytest.raises(ImportError, match="pip install faiss-cpu, or use ExactIndex"):
        FaissIndex().add(np.eye(2))


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW16", "RR16,IVF4,Flat"])
def test_rows_searched_and_rows_removed_keep_their_numbers_as_in_the_exact_index(vectors, factory):
    items, queries = vectors
    more = {"nprobe": 4} if "IVF" in factory else {"ef_search": 500} if "HNSW" in factory else {}
    index, exact = FaissIndex(factory, **more).add(items), ExactIndex().add(items)
    rows = np.arange(0, 500, 3)
    for _ in range(3):
        found, truth = index.search(queries, 5, rows=rows)[1], exact.search(queries, 5, rows=rows)[1]
        assert np.isin(found, rows).all()
        assert np.mean(found == truth) > 0.9
        assert np.mean(index.search(queries, 5)[1] == exact.search(queries, 5)[1]) > 0.9
        index.remove([0, 7, 499]).add(items[:3])
        exact.remove([0, 7, 499]).add(items[:3])
        assert len(index) == len(exact) == 500
        index = pickle.loads(pickle.dumps(index))


def test_an_index_that_cannot_search_some_items_says_so(vectors):
    items, queries = vectors
    index = FaissIndex("PQ4x4").add(items)
    with pytest.raises(ValueError, match="cannot search some items alone, .* factory='PQ4x4'; use ExactIndex"):
        index.search(queries, 1, rows=[1])


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat"])
@pytest.mark.parametrize("mmap", [True, False])
def test_a_saved_index_answers_alike(vectors, tmp_path, factory, mmap):
    items, queries = vectors
    index = FaissIndex(factory, nprobe=4 if "IVF" in factory else None).add(items).remove([3, 4])
    index.save(tmp_path / "index")
    opened = FaissIndex.load(tmp_path / "index", mmap=mmap)
    assert (opened.factory, opened.nprobe, len(opened)) == (factory, index.nprobe, 498)
    for found, truth in zip(opened.search(queries, 5), index.search(queries, 5), strict=True):
        np.testing.assert_array_equal(found, truth)
    with pytest.raises(ValueError, match=r"holds a FaissIndex, not a ExactIndex; load it by FaissIndex.load"):
        ExactIndex.load(tmp_path / "index")
