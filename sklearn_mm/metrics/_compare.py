"""Several models on the same images: how they differ, and how far that would move with other images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from sklearn_mm.metrics._annotation_scorer import AnnotationScorer
from sklearn_mm.metrics._bootstrap import Evidence, check_bootstrap, draw_samples, intervals
from sklearn_mm.metrics._inside import enter_class
from sklearn_mm.metrics._report import with_rsum
from sklearn_mm.metrics._scorer import RetrievalScorer, unwrap_ranker
from sklearn_mm.registry import stored_as

__all__ = ["Comparison", "compare"]

_NEGATIVE = "neg_"


@stored_as("metrics.Comparison")
@dataclass(frozen=True)
class Comparison:
    """Numbers of several models, and how they differ from the first, with intervals.

    Made by `compare`; printed, a table.

    Parameters
    ----------
    reports : dict of str to dict of str to float
        Of each model the numbers, each with "name_low" and "name_high".
    differences : dict of str to dict of str to float
        Of each model but the first, what its numbers are more than the first one's, with their ends: of the same draws
        of images for both.
    sizes : dict of str to float
        Of how many images, texts or labels the numbers are, and how large the galleries were.
    n_bootstrap : int
    confidence : float

    Examples
    --------
    >>> from sklearn_mm.metrics import Comparison
    >>> ends = {"mAP_low": 0.4, "mAP_high": 0.6}
    >>> comparison = Comparison({"one": {"mAP": 0.5} | ends}, {}, {"n_images": 90}, 1000, 0.95)
    >>> comparison.rows()
    [{'metric': 'mAP', 'model': 'one', 'value': 0.5, 'low': 0.4, 'high': 0.6}]
    """

    reports: dict[str, dict[str, float]]
    differences: dict[str, dict[str, float]]
    sizes: dict[str, float]
    n_bootstrap: int
    confidence: float

    @property
    def metrics(self) -> list[str]:
        """The names of the numbers."""
        (first, *_) = self.reports.values()
        return [name for name in first if f"{name}_low" in first]

    def rows(self) -> list[dict[str, Any]]:
        """Return the table: "metric", "model", "value", "low" and "high", and those of the "difference"."""
        table = []
        for metric in self.metrics:
            for model, report in self.reports.items():
                row = {"metric": metric, "model": model} | _with_ends(report, metric, "value", "")
                if model in self.differences:
                    row |= _with_ends(self.differences[model], metric, "difference", "difference_")
                table.append(row)
        return table

    def to_frame(self) -> Any:
        """Return the table as a DataFrame of pandas, which has to be installed.

        Raises
        ------
        ImportError
            It is not.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("a table as a frame needs pandas: pip install pandas; rows() needs nothing") from error
        return pandas.DataFrame(self.rows())

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {size:g}" for name, size in self.sizes.items())
        width, named = max(map(len, self.reports)), max(map(len, self.metrics))
        lines = [f"{sizes}; intervals of {self.confidence:.0%} by {self.n_bootstrap} draws of images"]
        lines += [f"{'':<{named}}  {'':<{width}}  {'value':>9} {'from':>9} {'to':>9}"]
        if self.differences:
            lines[-1] += f"  {'difference':>10} {'from':>9} {'to':>9}"
        before = ""
        for row in self.rows():
            line = f"{row['metric'] if row['metric'] != before else '':<{named}}  {row['model']:<{width}}  "
            line += " ".join(f"{row[name]:9.4g}" for name in ("value", "low", "high"))
            if "difference" in row:
                ends = row["difference_low"], row["difference_high"]
                clear = ends[0] > 0 or ends[1] < 0
                line += f"  {row['difference']:+10.4g} {ends[0]:+9.4g} {ends[1]:+9.4g}{' *' if clear else ''}"
            lines.append(line)
            before = row["metric"]
        if self.differences:
            lines.append("* the interval of the difference from the first model is on one side of 0")
        return "\n".join(lines)


def _with_ends(report: Mapping[str, float], metric: str, name: str, prefix: str) -> dict[str, float]:
    return {name: report[metric], f"{prefix}low": report[f"{metric}_low"], f"{prefix}high": report[f"{metric}_high"]}


def compare(
    models: Any,
    X: Any,
    y: Any,
    *,
    scoring: Any = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = 0,
) -> Comparison:
    """Compare fitted models on the same images, with intervals of their differences.

    Parameters
    ----------
    models : dict of str to estimator, or sequence of estimators
        Fitted rankers, or fitted annotators; or pipelines or searches around them. The first is what others are
        compared with. A single one in a list gets intervals of its own numbers.
    X : sequence of length n_images
        Images or their features, held out from all of them.
    y : captions or labels of each image
        As the scorer takes them.
    scoring : RetrievalScorer or AnnotationScorer, optional
        What is computed; with its `metric`, one number. None takes the one of the models' kind, with its defaults.
    n_bootstrap : int, default=1000
        How often images are drawn again.
    confidence : float, default=0.95
        Share of the draws that an interval holds.
    random_state : int, RandomState instance or None, default=0
        What images are drawn by.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        There is no model, names are not different, or a parameter is none of its options; and what the scorer raises.
    TypeError
        `scoring` is no scorer of this library, or a model is none of its kind.

    See Also
    --------
    retrieval_report, annotation_report : Intervals from embeddings and from scores.

    Notes
    -----
    Each draw takes the same images for all models: what is hard for all of them moves all numbers alike, and the
    difference less than either. An interval on one side of 0 says that the order of the two would most likely stay with
    other images like these. It does not know of other seeds: a model that is trained again differs too.

    Of several numbers and models some interval misses 0 by chance; decide beforehand which number counts.

    References
    ----------
    P. Koehn, "Statistical Significance Tests for Machine Translation Evaluation", EMNLP 2004: the paired bootstrap.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.metrics import RetrievalScorer, compare
    >>> class Noisy:
    ...     def __init__(self, noise):
    ...         self.noise = noise
    ...     def transform(self, X):
    ...         return X + self.noise * np.random.default_rng(0).normal(size=X.shape)
    ...     def transform_text(self, texts):
    ...         return np.eye(100)[[int(text) for text in texts]]
    >>> X, y = np.eye(100), [[str(row)] for row in range(100)]
    >>> models = {"noisy": Noisy(0.5), "clear": Noisy(0.1)}
    >>> comparison = compare(models, X, y, scoring=RetrievalScorer(metric="t2i_hit@1"))
    >>> comparison.differences["clear"]["t2i_hit@1_low"] > 0.3
    True
    """
    check_bootstrap(n_bootstrap, confidence)
    if n_bootstrap is None:
        raise ValueError("n_bootstrap must be an int of at least 2, got None")
    named = _named(models)
    scorer = _scorer_of(next(iter(named.values()))) if scoring is None else scoring
    if not isinstance(scorer, RetrievalScorer | AnnotationScorer):
        raise TypeError(f"scoring must be a RetrievalScorer, an AnnotationScorer or None, got {scorer!r:.60}")
    # One seed for all models, whatever is given: the draws are to be the same.
    seed = random_state
    if not isinstance(random_state, Integral):
        seed = check_random_state(random_state).randint(2**31 - 1)
    reports: dict[str, dict[str, float]] = {}
    samples: dict[str, dict[str, np.ndarray]] = {}
    for name, model in named.items():
        evidence: list[Evidence] = []
        report = scorer._report(model, X, y, evidence=evidence)
        drawn = draw_samples([evidence], n_bootstrap, seed)
        if isinstance(scorer, RetrievalScorer):
            drawn = with_rsum(drawn)
        reports[name], samples[name] = _asked(scorer.metric, report, drawn)
    (first, *others) = named
    differences = {}
    for name in others:
        gained = {metric: samples[name][metric] - samples[first][metric] for metric in samples[first]}
        value = {metric: reports[name][metric] - reports[first][metric] for metric in samples[first]}
        differences[name] = value | intervals(gained, confidence)
    sizes = {key: size for key, size in reports[first].items() if key not in samples[first]}
    for name, report in reports.items():
        reports[name] = {metric: report[metric] for metric in samples[name]} | intervals(samples[name], confidence)
    return Comparison(reports, differences, sizes, int(n_bootstrap), float(confidence))


def _asked(
    metric: str | None, report: dict[str, float], samples: dict[str, np.ndarray]
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Keep the numbers asked for, in the order of the report, and the sizes."""
    if metric is None:
        return report, {key: samples[key] for key in report if key in samples}
    key = metric.removeprefix(_NEGATIVE)
    sign = 1 if key == metric else -1
    sizes = {name: size for name, size in report.items() if name not in samples}
    return {metric: sign * report[key]} | sizes, {metric: sign * samples[key]}


def _named(models: Any) -> dict[str, Any]:
    if isinstance(models, Mapping):
        named = {str(name): model for name, model in models.items()}
    elif isinstance(models, Sequence) and not isinstance(models, str):
        kinds = [enter_class(model).__name__ for model in models]
        named = {
            kind if kinds.count(kind) == 1 else f"{kind} {kinds[: place + 1].count(kind)}": model
            for place, (kind, model) in enumerate(zip(kinds, models, strict=True))
        }
    else:
        raise TypeError(f"expected a dict or a list of fitted models, got a {type(models).__name__}; wrap it in a list")
    if not named or len(named) < len(models):
        raise ValueError("expected at least one model, and a name of its own for each")
    return named


def _scorer_of(model: Any) -> RetrievalScorer | AnnotationScorer:
    try:
        unwrap_ranker(model)
    except TypeError:  # it embeds no texts
        return AnnotationScorer()
    return RetrievalScorer()
