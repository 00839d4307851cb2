import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_mm import _threads
from sklearn_mm.index import ExactIndex, _scan
from tests import reference


@pytest.fixture(params=["whole", "small blocks", "three threads", "bfloat16"])
def blocks(request, monkeypatch):
    """Run with the usual blocks, which hold all of a small example, with blocks that cut it up, in threads, and so."""
    if request.param != "whole":
        monkeypatch.setattr(_scan, "_WORTH_ROWS", 2)
        monkeypatch.setattr(_scan, "_N_QUERY", 3)
        monkeypatch.setattr(_scan, "_N_ITEMS", 5)
        monkeypatch.setattr(_scan, "_N_SCORES", 15)
        monkeypatch.setattr(_scan, "_TILE", 10)
    if request.param == "three threads":
        monkeypatch.setattr(_scan, "_WORTH_A_THREAD", 1)
        monkeypatch.setattr(_threads, "n_workers", lambda: 3)
        monkeypatch.setattr(_scan, "_has_bfloat16", lambda: False)
    if request.param == "bfloat16":  # which torch computes anywhere, if slowly
        monkeypatch.setattr(_scan, "_WORTH_A_THREAD", 1)
        monkeypatch.setattr(_threads, "n_workers", lambda: 1)
        monkeypatch.setattr(_scan, "_WORTH_BFLOAT16", 1)
        monkeypatch.setattr(_scan, "_has_bfloat16", lambda: True)


def test_the_best_are_found_in_order_the_lower_index_first_among_equals(blocks):
    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 5), st.integers(1, 3), st.data())
    def check(seed, n_items, n_query, d, data):
        k = data.draw(st.integers(1, n_items))
        rng = np.random.default_rng(seed)
        items = rng.integers(-2, 3, (n_items, d))  # few different values: ties abound
        queries = rng.integers(-2, 3, (n_query, d))
        scores, indices = ExactIndex().add(items).search(queries, k)
        for row, query in enumerate(queries):
            products = [int(sum(query * item)) for item in items]
            assert indices[row].tolist() == reference.top_k(products, k)
            assert scores[row].tolist() == [products[i] for i in indices[row]]

    check()


@pytest.mark.parametrize("arrangement", ["random", "better and better", "worse and worse", "few different"])
def test_large_galleries_give_the_neighbours_of_a_full_sort(arrangement):
    rng = np.random.default_rng(0)
    items = rng.normal(size=(20_000, 24)).astype(np.float32)
    queries = rng.normal(size=(7, 24)).astype(np.float32)
    by_score = np.argsort(items @ queries[0])
    if arrangement == "better and better":
        items = items[by_score]
    elif arrangement == "worse and worse":
        items = items[by_score[::-1]]
    elif arrangement == "few different":
        items = items[rng.integers(0, 30, 20_000)]
    scores, indices = ExactIndex().add(items).search(queries, 50)
    exact = np.einsum("qd,nd->qn", queries.astype(np.float64), items.astype(np.float64)).astype(np.float32)
    truth = np.argsort(-exact, axis=1, kind="stable")[:, :50]
    np.testing.assert_array_equal(indices, truth)
    np.testing.assert_array_equal(scores, np.take_along_axis(exact, truth, axis=1))


@pytest.mark.parametrize("d", [7, 1000, 1024])
def test_equal_vectors_have_equal_scores_in_any_place(d):
    item = np.full((1, d), 0.1, dtype=np.float32)
    index = ExactIndex().add(np.repeat(item, 5001, axis=0)).add(np.repeat(item, 600, axis=0))
    scores, indices = index.search(np.full((601, d), 0.3), 20)
    assert (indices == np.arange(20)).all()
    assert len(np.unique(scores)) == 1


def test_adding_bit_by_bit_is_adding_at_once():
    rng = np.random.default_rng(0)
    items, queries = rng.normal(size=(50, 4)), rng.normal(size=(3, 4))
    bit_by_bit = ExactIndex()
    assert (len(bit_by_bit), bit_by_bit.n_components) == (0, None)
    for part in np.split(items, [1, 20, 21]):
        assert bit_by_bit.add(part) is bit_by_bit
    assert (len(bit_by_bit), bit_by_bit.n_components) == (50, 4)
    for found, truth in zip(bit_by_bit.search(queries, 50), ExactIndex().add(items).search(queries, 50), strict=True):
        np.testing.assert_array_equal(found, truth)


def test_answers_have_the_documented_types_and_shapes():
    scores, indices = ExactIndex().add(np.eye(4, dtype=np.int8)).search([[1, 2, 3, 4]], 3)
    assert (scores.dtype, indices.dtype) == (np.float32, np.int64)
    assert scores.shape == indices.shape == (1, 3)
    assert indices.tolist() == [[3, 2, 1]]


def test_the_index_keeps_its_own_copy():
    items = np.eye(3, dtype=np.float32)
    index = ExactIndex().add(items)
    items[:] = 0
    assert index.search([[0, 0, 1]], 1)[1].tolist() == [[2]]


def test_a_pickled_index_answers_alike():
    rng = np.random.default_rng(0)
    index = ExactIndex().add(rng.normal(size=(30, 5)))
    queries = rng.normal(size=(4, 5))
    copy = pickle.loads(pickle.dumps(index))
    for found, truth in zip(copy.search(queries, 7), index.search(queries, 7), strict=True):
        np.testing.assert_array_equal(found, truth)


def test_search_does_not_need_the_matrix_of_all_scores():
    rng = np.random.default_rng(0)
    index = ExactIndex().add(rng.normal(size=(60_000, 4)))
    queries = rng.normal(size=(1500, 4))
    tracemalloc.start()
    index.search(queries, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1500 * 60_000 * 4 / 5


@pytest.mark.parametrize("k", [0, 5, 1.0, True])
def test_k_must_be_one_to_the_size_of_the_gallery(k):
    with pytest.raises(ValueError, match="k=5 is larger than the gallery, which has 4|k must be a positive int"):
        ExactIndex().add(np.eye(4)).search(np.eye(4), k)


def test_an_empty_index_has_nothing_to_find():
    with pytest.raises(ValueError, match="gallery, which has 0 items"):
        ExactIndex().search([[1.0]], 1)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.eye(4)[:, :3], "has 3 components, but the index holds vectors of 4"),
        (np.ones(4), r"shape \(n, n_components\), got shape \(4,\)"),
        (np.empty((0, 4)), "non-empty"),
        ([[0, 0, 0, 0], [0, np.nan, 0, 0], [0, 0, np.inf, 0]], "NaN, infinity .* row 1 and 1 other rows"),
        ([[1e300, 0, 0, 0]], "beyond float32 in row 0"),
        ([[1, 0, 0, 0], [0, 1e20, 0, 0]], "longer than 1e.18 in row 1 and 0 other rows"),
    ],
)
def test_vectors_that_do_not_fit_are_named(vectors, message):
    index = ExactIndex().add(np.eye(4))
    with pytest.raises(ValueError, match=f"X .*{message}"):
        index.add(vectors)
    with pytest.raises(ValueError, match=f"Q .*{message}"):
        index.search(vectors, 1)
    assert len(index) == 4


def test_without_a_copy_the_vectors_given_are_searched():
    vectors = np.eye(3, dtype=np.float32)
    index = ExactIndex().add(vectors, copy=False)
    assert index.search(vectors[:1], k=1)[1].item() == 0
    assert any(np.shares_memory(part, vectors) for part in vars(index)["_parts"])


def test_the_longest_vectors_allowed_are_found():
    long = np.full((3, 4), 0.49e18) * [[1.0], [-1.0], [0.5]]
    scores, indices = ExactIndex().add(long).search(long, k=3)
    assert np.isfinite(scores).all()
    assert indices.tolist() == [[0, 2, 1], [1, 2, 0], [0, 2, 1]]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("rows", ["mask", "places", "none of the first part"])
def test_a_search_among_rows_finds_the_best_of_them_at_their_places(blocks, dtype, rows):
    rng = np.random.default_rng(0)
    items, queries = rng.integers(-3, 4, (60, 6)), rng.normal(size=(4, 6)).astype(np.float32)
    index = ExactIndex(dtype=dtype).add(items[:25]).add(items[25:])
    among = {"mask": rng.random(60) < 0.4, "places": rng.permutation(60)[:30], "none of the first part": [59, 30, 30]}
    places = np.arange(60)[among[rows]] if rows == "mask" else np.unique(among[rows])
    k = min(5, len(places))
    scores, indices = index.search(queries, k, rows=among[rows])
    truth = ExactIndex().add(items[places]).search(queries, k)
    np.testing.assert_array_equal(indices, places[truth[1]])
    np.testing.assert_array_equal(scores, truth[0])


def test_removed_items_are_found_no_more_and_those_behind_move_up(blocks):
    rng = np.random.default_rng(0)
    items, queries = rng.normal(size=(40, 5)), rng.normal(size=(4, 5))
    index = ExactIndex().add(items[:10]).add(items[10:20]).add(items[20:])
    assert index.remove([3, *range(10, 20), 39]) is index
    left = np.delete(items, [3, *range(10, 20), 39], axis=0)
    for found, truth in zip(index.search(queries, 28), ExactIndex().add(left).search(queries, 28), strict=True):
        np.testing.assert_array_equal(found, truth)
    index.remove(np.ones(28, dtype=bool))
    assert (len(index), index.n_components) == (0, 5)
    assert index.add(items[:2]).search(items[:1], 1)[1].shape == (1, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([4], r"places from 0 to 3, got 4 in row 0 and 0 others"),
        ([0, -1, 9], r"places from 0 to 3, got -1 in row 1 and 1 others"),
        ([True, False], "mask of 2 items, but the index holds 4"),
        ([0.0], r"mask \(bool\) or places of items \(int\), got dtype float64"),
        ([[1]], r"one-dimensional, got shape \(1, 1\)"),
        ([0, 1], "k=3 is larger than the gallery, which has 2 items"),
    ],
)
def test_rows_that_do_not_fit_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        ExactIndex().add(np.eye(4)).search(np.eye(4), 3, rows=rows)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_smaller_numbers_are_searched_exactly_as_they_are_kept(dtype):
    rng = np.random.default_rng(0)
    items = rng.normal(size=(3000, 16))
    items = np.sign(items) * (np.abs(items) > 0.5) if dtype == "int8" else items
    queries = rng.normal(size=(20, 16))
    index = ExactIndex(dtype=dtype).add(items)
    kept = items.astype(dtype).astype(np.float32)
    for found, truth in zip(index.search(queries, 9), ExactIndex().add(kept).search(queries, 9), strict=True):
        np.testing.assert_array_equal(found, truth)
    assert sum(part.nbytes for part in vars(index)["_parts"]) == items.size * np.dtype(dtype).itemsize


@pytest.mark.parametrize(
    ("dtype", "items", "message"),
    [
        ("int8", [[1, 0], [0.5, 0], [np.nan, 1]], "whole numbers from -128 to 127 .* row 1 and 1 other rows"),
        ("int8", [[1, 0], [300, 0]], "row 1 and 0 other rows"),
        ("float16", [[1, 0], [1e6, 0]], "beyond float16 in row 1"),
        ("float64", [[1, 0]], "dtype must be one of .*'float16', 'int8'.*, got 'float64'"),
    ],
)
def test_what_a_dtype_cannot_hold_is_named(dtype, items, message):
    with pytest.raises(ValueError, match=message):
        ExactIndex(dtype=dtype).add(items)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_a_saved_index_answers_alike_and_goes_on(tmp_path, dtype, mmap):
    rng = np.random.default_rng(0)
    items, queries = rng.integers(-3, 4, (50, 6)), rng.normal(size=(4, 6))
    index = ExactIndex(dtype=dtype).add(items[:20]).add(items[20:])
    index.save(tmp_path / "index")
    opened = ExactIndex.load(tmp_path / "index", mmap=mmap)
    part = vars(opened)["_parts"][0]
    assert part.flags.writeable is not mmap
    for _ in range(2):
        for found, truth in zip(opened.search(queries, 9), index.search(queries, 9), strict=True):
            np.testing.assert_array_equal(found, truth)
        opened.add(items[:3]).remove([1, 22])
        index.add(items[:3]).remove([1, 22])
        opened.save(tmp_path / "index")  # over the file it is mapped from
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert len(ExactIndex.load(tmp_path / "index")) == len(index)


def test_what_is_no_saved_index_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder written by ExactIndex.save"):
        ExactIndex.load(tmp_path)
    with pytest.raises(FileExistsError, match="holds no saved index"):
        ExactIndex().add(np.eye(3)).save(tmp_path)
    with pytest.raises(ValueError, match="an empty one; add items"):
        ExactIndex().save(tmp_path / "index")
    ExactIndex().add(np.eye(3)).save(tmp_path / "index")
    np.save(tmp_path / "index" / "vectors.npy", np.eye(2, dtype=np.float32))
    with pytest.raises(ValueError, match=r"must hold \[3, 3\] numbers of float32"):
        ExactIndex.load(tmp_path / "index")
    facts = tmp_path / "index" / "index.json"
    facts.write_text(facts.read_text().replace('"version": 1', '"version": 7'))
    with pytest.raises(ValueError, match="version 7; this version of sklearn_mm reads"):
        ExactIndex.load(tmp_path / "index")


def test_a_disk_that_fills_up_leaves_what_was_saved_before(tmp_path, monkeypatch):
    index = ExactIndex().add(np.eye(3))
    index.save(tmp_path / "index")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "open_memmap", full)
    with pytest.raises(OSError, match="No space left"):
        index.add(np.eye(3)).save(tmp_path / "index")
    monkeypatch.undo()
    assert len(ExactIndex.load(tmp_path / "index")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_pickle_of_an_older_version_opens():
    index = ExactIndex().add(np.eye(3))
    state = vars(index).copy()
    del state["dtype"]
    old = ExactIndex.__new__(ExactIndex)
    old.__setstate__(state)
    assert old.add(np.eye(3)).search(np.eye(3), 1)[1].ravel().tolist() == [0, 1, 2]


def test_vectors_come_out_as_they_are_kept_in_the_order_asked_for():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 4)).astype(np.float32)
    index = ExactIndex(dtype="float16").add(X[:7]).add(X[7:8]).add(X[8:])
    for rows in ([3, 29, 7, 7, 0], np.arange(30), np.arange(30) % 3 == 0, [], range(20, 28)):
        taken = index.take(rows)
        assert taken.dtype == np.float16
        np.testing.assert_array_equal(taken, X.astype(np.float16)[np.asarray(rows, dtype=None if len(rows) else int)])
    with pytest.raises(ValueError, match="places from 0 to 29, got 30"):
        index.take([30])


def test_items_that_come_one_by_one_are_searched_in_few_parts():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4)).astype(np.float32)
    index = ExactIndex()
    for row in range(300):
        index.add(X[row : row + 1])
    assert len(index._parts) < 10
    truth = ExactIndex().add(X)
    for found, expected in zip(index.search(X[:9], 5), truth.search(X[:9], 5), strict=True):
        np.testing.assert_array_equal(found, expected)
