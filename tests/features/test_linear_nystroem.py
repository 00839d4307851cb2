"""LinearNystroem: coordinates in the span of some rows."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mm._unreadable import MarkedFeatures, mark_features
from sklearn_mm.features import LinearNystroem
from sklearn_mm.images import ReadFailure
from sklearn_mm.retrieval import CorrelationRanker

TOLERANCE = 2e-4  # float32 through a root of a Gram matrix


@pytest.fixture(scope="module")
def ternary():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(60, 10)) @ rng.normal(size=(10, 300)) + rng.normal(size=(60, 300)) > 0.5).astype(np.int8)


def test_products_are_those_in_the_span_of_all_rows(ternary):
    standardised = StandardScaler().fit_transform(ternary.astype(float))
    coordinates = LinearNystroem(60, random_state=0).fit_transform(ternary)
    expected = standardised @ standardised.T
    found = coordinates @ coordinates.T
    scale = np.trace(expected) / np.trace(found)
    np.testing.assert_allclose(found * scale, expected, atol=2e-3 * expected.diagonal().mean())


def test_coordinates_are_those_of_the_projection_on_the_rows_drawn(ternary):
    projection = LinearNystroem(20, random_state=0).fit(ternary)
    standardised = StandardScaler().fit_transform(ternary.astype(float))
    # the rows drawn are those that the projection leaves as long as they are
    lengths = np.linalg.norm(projection.transform(ternary), axis=1) / np.linalg.norm(standardised, axis=1)
    kept = np.sort(np.argsort(-lengths)[:20])
    basis = np.linalg.qr(standardised[kept].T)[0]
    expected = (standardised @ basis) @ (standardised @ basis).T
    found = projection.transform(ternary) @ projection.transform(ternary).T
    np.testing.assert_allclose(found * np.trace(expected) / np.trace(found), expected, atol=0.05)


def test_fit_transform_is_fit_and_transform(ternary):
    projection = LinearNystroem(20, random_state=0)
    np.testing.assert_allclose(
        projection.fit_transform(ternary), clone(projection).fit(ternary).transform(ternary), atol=TOLERANCE
    )


def test_coordinates_are_alike_and_of_unit_size():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 50)) * 0.9 ** np.arange(50) @ rng.normal(size=(50, 900))  # few directions vary much
    deviations = LinearNystroem(40, random_state=0).fit_transform(X).std(axis=0)
    assert deviations.mean() == pytest.approx(1, abs=0.15)
    assert deviations.max() < 4 * deviations.min()


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (2, 1)])
def test_there_are_no_more_coordinates_than_rows_or_columns(shape):
    projection = LinearNystroem(random_state=0).fit(np.random.default_rng(0).normal(size=shape))
    assert projection.n_components_ == min(shape)


def test_rows_that_are_alike_and_columns_that_are_constant_are_no_error():
    X = np.ones((30, 40), dtype=np.float32)
    X[:10, :20] = 0
    coordinates = LinearNystroem(25, random_state=0).fit_transform(X)
    assert np.isfinite(coordinates).all()
    assert np.abs(coordinates[0] - coordinates[5]).max() < 0.05 < np.abs(coordinates[0] - coordinates[20]).max()
    assert not LinearNystroem(25).fit_transform(np.ones((30, 40))).any()


def test_seeds_draw_rows(ternary):
    one, same, other = (LinearNystroem(20, random_state=seed).fit(ternary) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.components_, same.components_)
    assert not np.allclose(one.components_, other.components_)


def test_sparse_rows_are_refused_with_the_way_out(ternary):
    with pytest.raises(TypeError, match="TruncatedSVD"):
        LinearNystroem().fit(sparse.csr_array(ternary))


@pytest.mark.parametrize("left_out", [True, False])
def test_rows_that_could_not_be_read_are_told_to_what_comes_next(ternary, left_out):
    failures = [ReadFailure(3, "c.jpg", "broken")]
    rows = np.delete(ternary, 3, axis=0) if left_out else ternary * (np.arange(60) != 3)[:, None].astype(np.int8)
    marked = mark_features(rows.copy(), failures, 60)
    coordinates = LinearNystroem(20, random_state=0).fit_transform(marked)
    assert isinstance(coordinates, MarkedFeatures)
    assert coordinates.failures == tuple(failures)
    plain = LinearNystroem(20, random_state=0).fit_transform(np.delete(ternary, 3, axis=0))
    found = np.asarray(coordinates)
    np.testing.assert_allclose(found if left_out else np.delete(found, 3, axis=0), plain, atol=TOLERANCE)
    assert left_out or np.isnan(found[3]).all()


def test_a_ranker_learns_from_coordinates_as_from_columns(ternary):
    captions = [f"scene {row % 6} word{row % 4}" for row in range(60)]
    ternary = ternary.copy()
    ternary[:, :60] = np.eye(12, dtype=np.int8)[np.arange(60) % 12].repeat(5, axis=1)
    model = make_pipeline(LinearNystroem(random_state=0), CorrelationRanker(random_state=0)).fit(ternary, captions)
    assert model.score(ternary, captions) > 0.5
