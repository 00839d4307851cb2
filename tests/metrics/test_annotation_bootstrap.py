"""Intervals of annotation: a draw is what the report says of images of those weights."""

import numpy as np
import pytest
from scipy import sparse

from sklearn_mm.metrics import _bootstrap, annotation_report
from sklearn_mm.metrics._annotation import report_labels

SIZES = {"n_images", "n_labels"}


@pytest.fixture(scope="module")
def scored():
    """Sixty images, seven labels: one never true, scores with ties."""
    rng = np.random.default_rng(0)
    Y = rng.random((60, 7)) < 0.3
    Y[:, 6] = False
    return Y.astype(float), np.round(Y + rng.normal(size=Y.shape), 1)


@pytest.mark.parametrize("zero_division", [0.0, 1.0, np.nan])
@pytest.mark.parametrize("absent_labels", ["skip", "zero"])
@pytest.mark.parametrize("kind", ["fixed", "counts", "true", "chosen", "unknown", "sparse"])
def test_a_draw_is_the_report_of_images_that_count_so_often(scored, zero_division, absent_labels, kind):
    Y, scores = scored
    rng = np.random.default_rng(1)
    n_labels = {"counts": rng.integers(0, 4, 60), "true": "true", "chosen": (scores > 0.5).astype(int)}.get(kind, 2)
    if kind == "unknown":
        Y, n_labels = np.where(rng.random(Y.shape) < 0.1, np.nan, Y), "true"
    if kind == "sparse":
        Y = sparse.csr_array(Y)
    weight = rng.random(60)
    options = {"zero_division": zero_division, "absent_labels": absent_labels}
    evidence = []
    report_labels(Y, scores, n_labels, sample_weight=weight, evidence=evidence, **options)
    (counts,) = _bootstrap._counts(60, 4, rng)
    samples = evidence[0].samples(counts)
    for draw, count in enumerate(counts):
        report = annotation_report(Y, scores, n_labels, sample_weight=weight * count, **options)
        assert {name: values[draw] for name, values in samples.items()} == pytest.approx(
            {name: report[name] for name in report if name not in SIZES}, nan_ok=True
        )


def test_every_number_has_an_interval_around_it(scored):
    report = annotation_report(*scored, 2)
    with_ends = annotation_report(*scored, 2, n_bootstrap=200)
    assert {key: with_ends[key] for key in report} == report
    names = report.keys() - SIZES
    assert with_ends.keys() - report.keys() == {f"{key}_{end}" for key in names for end in ("low", "high")}
    for key in names:
        assert with_ends[f"{key}_low"] <= report[key] <= with_ends[f"{key}_high"]
    assert annotation_report(*scored, 2, n_bootstrap=200) == with_ends
    assert annotation_report(*scored, 2, n_bootstrap=200, random_state=1) != with_ends


def test_misuse_is_named(scored):
    with pytest.raises(ValueError, match="n_bootstrap must be an int of at least 2, or None, got 1"):
        annotation_report(*scored, 2, n_bootstrap=1)
