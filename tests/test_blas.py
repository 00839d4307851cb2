import numpy as np
import pytest

from sklearn_mm import _blas
from sklearn_mm._blas import longest_sum, product_of_rows


@pytest.fixture(params=["BLAS of scipy", "without it"])
def blas(request, monkeypatch):
    if request.param == "without it":
        monkeypatch.setattr(_blas, "_sgemm", lambda: None)


@pytest.mark.parametrize(("n_left", "n_right", "d"), [(70, 90, 700), (1, 70, 1000), (130, 64, 1024), (5, 5, 3)])
def test_products_are_those_of_float64_within_their_bound(n_left, n_right, d, blas):
    rng = np.random.default_rng(0)
    left = rng.normal(size=(n_left, d)).astype(np.float32)
    right = rng.normal(size=(n_right, d)).astype(np.float32)
    out = np.full((n_left, n_right), np.nan, dtype=np.float32)
    product = product_of_rows(left, right, out)
    assert product is out
    magnitudes = np.abs(left).astype(np.float64) @ np.abs(right).astype(np.float64).T
    error = np.abs(product - left.astype(np.float64) @ right.astype(np.float64).T)
    assert (error <= longest_sum(d) * np.finfo(np.float32).eps / 2 * magnitudes).all()


def test_sums_are_short():
    assert [longest_sum(d) for d in (1, 256, 1024, 1000)] == [2, 257, 260, 260]
    # what one long sum of ones would lose, as float32 has no 2 ** 24 + 1
    left, right = np.ones((100, 512), dtype=np.float32), np.ones((80, 512), dtype=np.float32)
    left[:, 0] = 2.0**24
    assert (product_of_rows(left, right) >= 2.0**24 + 256).all()


def test_rows_may_lie_anywhere(blas):
    rng = np.random.default_rng(0)
    wide = rng.integers(-3, 4, size=(300, 1400)).astype(np.float32)
    expected = wide[:100, 5:605] @ wide[100:200, 5:605].T
    assert (product_of_rows(wide[:100, 5:605], wide[100:200, 5:605]) == expected).all()
    turned = np.asfortranarray(wide)
    assert (product_of_rows(turned[:100, 5:605], turned[100:200, 5:605]) == expected).all()
    assert (product_of_rows(wide[99::-1, 5:605], wide[100:200, 5:605]) == expected[::-1]).all()
    out = np.empty((200, 100), dtype=np.float32)[::2]
    assert (product_of_rows(wide[:100, 5:605], wide[100:200, 5:605], out) == expected).all()


def test_a_blas_that_adds_terms_to_what_is_there_is_not_used(monkeypatch):
    assert _blas._sgemm() is not None

    def one_by_one(sgemm, left, right, out):
        for term in range(left.shape[1]):
            out += np.outer(left[:, term], right[:, term])

    monkeypatch.setattr(_blas, "_call", one_by_one)
    assert not _blas._sums_apart(None)
