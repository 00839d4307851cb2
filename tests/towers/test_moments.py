import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sklearn_mm.towers import RunningMoments, discretise, standardise, ternary_limits

ROUNDING = 1e-12  # float64, relative


def moments_of(rows, cuts=()):
    moments = RunningMoments()
    for part in np.split(rows, list(cuts)):
        moments.update(part)
    return moments


@settings(deadline=None, max_examples=50)
@given(
    rows=hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.floats(-1e3, 1e3)),
    data=st.data(),
)
def test_pieces_merge_into_the_moments_of_the_whole(rows, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=5)))
    moments = moments_of(rows, cuts)
    assert moments.n_rows == len(rows)
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=ROUNDING, atol=1e-10)
    np.testing.assert_allclose(moments.squares, rows.var(axis=0) * len(rows), rtol=1e-9, atol=1e-8)
    merged = RunningMoments()
    for part in np.split(rows, cuts):
        merged.merge(moments_of(part))
    assert (merged.n_rows, merged.resolution) == (moments.n_rows, moments.resolution)
    np.testing.assert_allclose(merged.mean, rows.mean(axis=0), rtol=ROUNDING, atol=1e-10)
    np.testing.assert_allclose(merged.squares, rows.var(axis=0) * len(rows), rtol=1e-9, atol=1e-8)


def test_large_means_cost_no_digits():
    rows = np.random.default_rng(0).normal(1e9, 1e-3, size=(1000, 2))
    moments = moments_of(rows, [1, 10, 500])
    np.testing.assert_allclose(np.sqrt(moments.squares / 1000), (rows - 1e9).std(axis=0), rtol=1e-5)  # rows have 1e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.1, -1 / 3, 1e7 / 3])
def test_a_constant_column_has_scale_zero_exactly(dtype, value):
    moments = moments_of(np.full((31, 3), value, dtype=dtype), [1, 7, 20])
    assert moments.squares.tolist() == [0.0] * 3
    assert moments.scale.tolist() == [0.0] * 3


def test_a_column_that_varies_less_than_its_floats_resolve_is_constant():
    rows = np.full((10, 2), 3.0, dtype=np.float32)
    rows[::2, 0] = np.nextafter(np.float32(3), np.float32(4))
    rows[::2, 1] = 3.001
    scale = moments_of(rows).scale
    assert scale[0] == 0
    assert scale[1] > 0


def test_a_scale_of_zero_standardises_and_discretises_to_zero():
    rows = np.array([[5.0, -9.0], [7.0, 2.0]])
    mean, scale = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    np.testing.assert_array_equal(standardise(rows, mean, scale), np.float32([[0, -4.5], [0, 1]]))
    low, high = ternary_limits(mean, scale, (-0.25, 0.15), rows.dtype)
    np.testing.assert_array_equal(discretise(rows, low, high), [[0, -1], [0, 1]])


def test_a_value_on_a_threshold_is_zero():
    step = np.finfo(np.float64).eps
    rows = np.array([[-0.25], [-0.25 * (1 + step)], [0.15], [0.15 * (1 + step)], [0.0]])
    low, high = ternary_limits(np.zeros(1), np.ones(1), (-0.25, 0.15), rows.dtype)
    embedded = discretise(rows, low, high)
    assert embedded.dtype == np.int8
    assert embedded.ravel().tolist() == [0, -1, 0, 1, 0]


@settings(deadline=None)
@given(mean=st.floats(-100, 100), scale=st.floats(1e-3, 100), steps=st.integers(-3, 3), side=st.sampled_from([0, 1]))
def test_float32_values_are_compared_with_the_exact_limits(mean, scale, steps, side):
    thresholds = (-0.25, 0.15)
    exact = mean + thresholds[side] * scale
    value = np.float32(exact)
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.inf) if steps > 0 else np.float32(-np.inf))
    low, high = ternary_limits(np.array([mean]), np.array([scale]), thresholds, np.dtype(np.float32))
    expected = int(float(value) > mean + 0.15 * scale) - int(float(value) < mean - 0.25 * scale)
    assert value.dtype == low.dtype == np.float32
    assert discretise(np.array([[value]]), low, high).item() == expected
