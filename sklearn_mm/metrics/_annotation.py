"""The numbers that papers on image annotation print, as one dict."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_mm._tables import as_number_table, require_rows
from sklearn_mm.metrics._bootstrap import Evidence, check_bootstrap, draw_samples, intervals
from sklearn_mm.metrics._label_bootstrap import label_numbers
from sklearn_mm.metrics._label_sums import LabelMatrix, LabelSums, average_precisions, sum_labels
from sklearn_mm.metrics._ranks import check_weights

__all__ = ["annotation_report", "check_annotation_options", "format_annotation_report", "report_labels"]

_CHECKED_ENTRIES = 1 << 22  # looked at in one go
_TABLE = ("C-P", "C-R", "C-F1", "O-P", "O-R", "O-F1", "H-F1", "mAP")


def annotation_report(
    Y_true: Any,
    scores: Any,
    n_labels: Any,
    *,
    zero_division: float = 0.0,
    absent_labels: str = "skip",
    sample_weight: Any = None,
    n_bootstrap: int | None = None,
    confidence: float = 0.95,
    random_state: Any = 0,
) -> dict[str, float]:
    """Report how well images are annotated with several labels each.

    Parameters
    ----------
    Y_true : array-like or sparse matrix of shape (n_images, n_labels)
        Indicator: 1 where a label is true, otherwise 0. NaN (in a frame None or NA too) says that it is not known;
        such an entry counts neither as right nor as wrong.
    scores : array-like or sparse matrix of shape (n_images, n_labels)
        Higher for labels that are more likely: probabilities, or any other score. Infinities are allowed,
        NaN is not. What a sparse matrix does not store is 0.
    n_labels : int, array-like of int of shape (n_images,), "true", or matrix of shape (n_images, n_labels)
        How many labels each image gets, the best by `scores`: the same number for all, a number for each,
        or as many as are true, which is the upper bound for all that predict the number. Or which labels it
        gets, where a threshold or anything else has chosen them: an indicator, dense or sparse.
    zero_division : {0.0, 1.0, nan}, default=0.0
        The precision of a label that is never predicted, within the mean "C-P"; NaN leaves it out.
    absent_labels : {"skip", "zero"}, default="skip"
        A label that is true nowhere has no recall. "skip" leaves it out of "C-P" and "C-R"; "zero" counts
        its recall as 0, as sums over all labels of a data set do. It never enters "mAP".
    sample_weight : array-like of shape (n_images,), optional
        Weights of the images.
    n_bootstrap : int, optional
        Draw the images so many times again, for intervals of all numbers; 1,000 are usual.
    confidence : float, default=0.95
        Share of the draws that an interval holds.
    random_state : int, RandomState instance or None, default=0
        What images are drawn by: the same int draws the same in every call.

    Returns
    -------
    dict of str to float
        - ``"C-P"``, ``"C-R"``: precision and recall of each label, averaged over labels; ``"C-F1"``: the
          harmonic mean of these two averages, not the average of each label's F1;
        - ``"O-P"``, ``"O-R"``, ``"O-F1"``: of all predicted labels of all images the share that is right, of
          all true ones the share that is predicted, and their harmonic mean;
        - ``"H-F1"``: the harmonic mean of "C-F1" and "O-F1";
        - ``"mAP"``: average precision of each label, without interpolation, averaged over labels that are
          true somewhere;
        - ``"N+"``: how many labels are rightly predicted at least once;
        - ``"count_mae"``, ``"count_accuracy"``: mean absolute error of the number of labels, and the share
          of images where it is right;
        - ``"n_images"``, ``"n_labels"``: of how many images, and how many labels are true somewhere.

        All but the errors and numbers are fractions in [0, 1]. With `n_bootstrap` ``"O-F1_low"``, ``"O-F1_high"`` and
        so on for every number but the last two.

    Raises
    ------
    ValueError
        Shapes do not fit, `Y_true` holds anything but 0, 1 and NaN, `scores` holds NaN, `n_labels` is none of
        its forms or larger than there are labels, or a parameter is none of its options.

    See Also
    --------
    AnnotationScorer : The same dict for an estimator, in `GridSearchCV` and `cross_validate`.
    format_annotation_report : Reports as a table.

    Notes
    -----
    Of labels that score alike, those of lower columns are taken first. For "mAP" images that score alike
    enter together, as in :func:`sklearn.metrics.average_precision_score`: equal scores everywhere give the
    label's frequency. Where nothing is predicted "O-P" is 0, where nothing is true "O-R" is 0; "mAP" is then
    NaN. Images with unknown truth of any label are left out of "count_mae" and "count_accuracy", which are
    NaN if none is left; under ``n_labels="true"`` labels are chosen among those whose truth is known.

    Memory beyond the inputs is some tens of megabytes, or that of a transposed copy where an input is sparse.
    Time goes into one sort of the scores of each label: about 2 ms for 100,000 images. A bootstrap ranks the images of
    each label anew for each draw, without sorting: about 20 ns an image, label and draw.

    References
    ----------
    Y. Niu, Z. Lu, J.-R. Wen, T. Xiang and S.-F. Chang, "Multi-modal multi-scale deep learning for large-scale
    image annotation", IEEE Transactions on Image Processing 28(4), 2019: the per-class, overall and H-F1
    numbers, at a fixed, predicted and true number of labels.

    Examples
    --------
    >>> from sklearn_mm.metrics import annotation_report
    >>> Y_true = [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    >>> scores = [[0.9, 0.8, 0.1], [0.2, 0.7, 0.6], [0.4, 0.5, 0.3]]
    >>> report = annotation_report(Y_true, scores, 2)
    >>> report["O-P"], report["O-R"], report["N+"]
    (0.6666666666666666, 1.0, 2)
    >>> annotation_report(Y_true, scores, "true")["O-P"]
    0.75
    """
    check_bootstrap(n_bootstrap, confidence)
    evidence: list[Evidence] = []
    report = report_labels(
        Y_true,
        scores,
        n_labels,
        zero_division=zero_division,
        absent_labels=absent_labels,
        sample_weight=sample_weight,
        evidence=evidence if n_bootstrap is not None else None,
    )
    if n_bootstrap is None:
        return report
    return report | intervals(draw_samples([evidence], n_bootstrap, random_state), confidence)


def report_labels(
    Y_true: Any,
    scores: Any,
    n_labels: Any,
    *,
    zero_division: float,
    absent_labels: str,
    sample_weight: Any,
    evidence: list[Evidence] | None = None,
) -> dict[str, float]:
    """Report as `annotation_report` does; add what the numbers are made of to `evidence`."""
    check_annotation_options(zero_division, absent_labels)
    truth, scored = _check_truth(Y_true), _check_scores(scores)
    if scored.shape != truth.shape:
        raise ValueError(
            f"expected Y_true and scores of one shape (n_images, n_labels), got {truth.shape} and {scored.shape}"
        )
    predicted = _check_n_labels(n_labels, truth.shape)
    weight = check_weights(sample_weight, truth.shape[0], "images")
    sums = sum_labels(truth, scored, predicted, weight)
    if evidence is not None:
        evidence.append(label_numbers(truth, scored, predicted, weight, zero_division, absent_labels))
    report = _label_means(sums, zero_division, absent_labels)
    precisions = average_precisions(truth, scored, weight)
    found = ~np.isnan(precisions)
    return report | {
        "mAP": float(precisions[found].mean()) if found.any() else np.nan,
        "N+": int(np.count_nonzero(sums.n_correct)),
        "count_mae": sums.count_error / sums.n_counts if sums.n_counts else np.nan,
        "count_accuracy": sums.n_right_counts / sums.n_counts if sums.n_counts else np.nan,
        "n_images": truth.shape[0],
        "n_labels": int(np.count_nonzero(sums.n_true)),
    }


def _label_means(sums: LabelSums, zero_division: float, absent_labels: str) -> dict[str, float]:
    """Return the precisions, recalls and their harmonic means."""
    # 0 / 0 alone can occur, as nothing is right where nothing is predicted or true; it is replaced below.
    with np.errstate(invalid="ignore"):
        precision = sums.n_correct / sums.n_predicted
        recall = sums.n_correct / sums.n_true
    precision[sums.n_predicted == 0] = zero_division
    recall[sums.n_true == 0] = 0
    counted = np.full(len(recall), True) if absent_labels == "zero" else sums.n_true > 0
    with_precision = counted & ~np.isnan(precision)
    means = {
        "C-P": float(precision[with_precision].mean()) if with_precision.any() else 0.0,
        "C-R": float(recall[counted].mean()) if counted.any() else 0.0,
    }
    means["C-F1"] = _harmonic_mean(means["C-P"], means["C-R"])
    n_correct = sums.n_correct.sum()
    means["O-P"] = float(n_correct / max(sums.n_predicted.sum(), np.finfo(float).tiny))  # 0, not 0 / 0
    means["O-R"] = float(n_correct / max(sums.n_true.sum(), np.finfo(float).tiny))
    means["O-F1"] = _harmonic_mean(means["O-P"], means["O-R"])
    means["H-F1"] = _harmonic_mean(means["C-F1"], means["O-F1"])
    return means


def _harmonic_mean(first: float, second: float) -> float:
    return 2 * first * second / (first + second) if first + second else 0.0


def format_annotation_report(reports: Mapping[str, Any]) -> str:
    """Lay reports out as a table, in percent.

    Parameters
    ----------
    reports : dict
        A report as `annotation_report` returns it; or several, named: ``{"fixed 3": report, ...}``.

    Returns
    -------
    str
        A line of column heads, and a line for each report. "N+" is a number out of "n_labels", "count MAE"
        is in labels.

    Examples
    --------
    >>> from sklearn_mm.metrics import annotation_report, format_annotation_report
    >>> Y_true, scores = [[1, 1, 0], [0, 1, 0]], [[0.9, 0.8, 0.1], [0.2, 0.7, 0.6]]
    >>> print(format_annotation_report({"2 each": annotation_report(Y_true, scores, 2)}))
              C-P    C-R   C-F1    O-P    O-R   O-F1   H-F1    mAP       N+  count MAE
    2 each  100.0  100.0  100.0   75.0  100.0   85.7   92.3  100.0      2/2       0.50
    """
    # A single report is told by one of its keys.
    named = {"": reports} if "O-F1" in reports else reports
    width = max(map(len, named), default=0)
    lines = [" " * width + "".join(f"{key:>7}" for key in _TABLE) + f"{'N+':>9}{'count MAE':>11}"]
    for name, report in named.items():
        percents = "".join(f"{100 * report[key]:7.1f}" for key in _TABLE)
        recalled = f"{report['N+']:g}/{report['n_labels']:g}"
        lines.append(f"{name:<{width}}{percents}{recalled:>9}{report['count_mae']:11.2f}")
    return "\n".join(lines)


def check_annotation_options(zero_division: Any, absent_labels: Any) -> None:
    """Check the two policies."""
    if zero_division not in (0, 1) and not (isinstance(zero_division, float) and np.isnan(zero_division)):
        raise ValueError(f"zero_division must be 0.0, 1.0 or nan, got {zero_division!r}")
    if absent_labels not in ("skip", "zero"):
        raise ValueError(f"absent_labels must be 'skip' or 'zero', got {absent_labels!r}")


def _as_matrix(matrix: Any, name: str) -> Any:
    """Return an ndarray or a sparse matrix of two dimensions that holds numbers."""
    if sparse.issparse(matrix):
        matrix = matrix.tocsr()
    else:
        require_rows(matrix, f"{name}, a matrix (n_images, n_labels)")
        try:
            matrix = as_number_table(matrix)
        except ValueError as error:  # rows of different length
            raise ValueError(f"{name} must be a matrix (n_images, n_labels): {error}") from error
    if matrix.ndim != 2 or 0 in matrix.shape or matrix.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be a matrix of numbers (n_images, n_labels), at least one of each, "
            f"got shape {matrix.shape} of dtype {matrix.dtype}"
        )
    return matrix


def _check_entries(matrix: Any, is_bad: Any, name: str, expected: str) -> None:
    """Raise for the first entry that is bad; blocks of rows are looked at, or what a sparse matrix stores."""
    if sparse.issparse(matrix):
        # What is not stored is 0, which is never bad.
        bad = np.flatnonzero(is_bad(matrix.data))
        if bad.size:
            row = int(np.searchsorted(matrix.indptr, bad[0], side="right")) - 1
            raise ValueError(f"{name} must hold {expected}, got {matrix.data[bad[0]]} in row {row}")
        return
    step = max(1, _CHECKED_ENTRIES // matrix.shape[1])
    for start in range(0, len(matrix), step):
        rows, columns = np.nonzero(is_bad(matrix[start : start + step]))
        if rows.size:
            row = start + int(rows[0])
            raise ValueError(f"{name} must hold {expected}, got {matrix[row, columns[0]]} in row {row}")


def _check_truth(Y_true: Any) -> LabelMatrix:
    matrix = _as_matrix(Y_true, "Y_true")
    _check_entries(matrix, _is_no_mark, "Y_true", "1 and 0, or NaN where a label is not known")
    return LabelMatrix(matrix)


def _is_no_mark(entries: np.ndarray) -> np.ndarray:
    bad = (entries != 0) & (entries != 1)
    # Integers hold no NaN: a pass less.
    return bad & ~np.isnan(entries) if entries.dtype.kind == "f" else bad


def _check_scores(scores: Any) -> LabelMatrix:
    matrix = _as_matrix(scores, "scores")
    if matrix.dtype.kind == "f":
        _check_entries(matrix, np.isnan, "scores", "numbers without NaN")
    return LabelMatrix(matrix)


def _check_n_labels(n_labels: Any, shape: tuple[int, int]) -> LabelMatrix | np.ndarray | None:
    """Return what is predicted, how many labels for each image, or None for the true number."""
    if isinstance(n_labels, str):
        if n_labels != "true":
            raise ValueError(f"n_labels must be an int, an int for each image, 'true' or a matrix, got {n_labels!r}")
        return None
    if sparse.issparse(n_labels) or np.ndim(n_labels) == 2:
        matrix = _as_matrix(n_labels, "n_labels")
        if matrix.shape != shape:
            raise ValueError(f"n_labels, an indicator, must have the shape of Y_true, {shape}, got {matrix.shape}")
        _check_entries(matrix, lambda entries: (entries != 0) & (entries != 1), "n_labels", "1 and 0")
        return LabelMatrix(matrix)
    counts = np.asarray(n_labels)
    if counts.ndim == 0:
        if counts.dtype.kind not in "iu" or counts < 1:
            raise ValueError(
                f"n_labels must be a positive int, an int for each image, 'true' or a matrix, got {n_labels!r}"
            )
        counts = np.full(shape[0], counts)
    is_number = counts.dtype.kind in "iuf"
    if counts.shape != (shape[0],) or not is_number or not np.array_equal(counts, np.floor(counts)):
        raise ValueError(
            f"n_labels must hold an int for each of the {shape[0]} images, "
            f"got shape {counts.shape} of dtype {counts.dtype}"
        )
    bad = np.flatnonzero((counts < 0) | (counts > shape[1]))
    if bad.size:
        raise ValueError(
            f"n_labels must lie between 0 and the number of labels, {shape[1]}, got {counts[bad[0]]} for row {bad[0]}"
        )
    return counts.astype(np.int64)
