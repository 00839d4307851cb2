"""One number of a report, asked for by its name: what searches and learning curves can be steered by."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn_mm._checks import did_you_mean

__all__ = ["RetrievalMetric", "check_annotation_metric", "check_retrieval_metric", "one_number"]

_NEGATIVE = "neg_"  # before the name of a number of which the smallest is the best, as in scikit-learn
_SHARE = re.compile(r"(i2t|t2i)_(hit|recall|ndcg)@([1-9][0-9]*)")
_MAP = re.compile(r"(i2t|t2i)_map@r")
_RANK = re.compile(rf"{_NEGATIVE}(i2t|t2i)_(?:median|mean)_rank")
_RETRIEVAL = (
    "rsum",
    *(f"{way}_{share}@{k}" for share in ("hit", "recall", "ndcg") for way in ("t2i", "i2t") for k in (1, 5, 10)),
    *("t2i_map@r", "i2t_map@r"),
    *(f"{_NEGATIVE}{way}_{rank}_rank" for rank in ("median", "mean") for way in ("t2i", "i2t")),
)
_ANNOTATION = (
    *("O-F1", "C-F1", "H-F1", "mAP", "O-P", "O-R", "C-P", "C-R", "N+"),
    *("count_accuracy", f"{_NEGATIVE}count_mae"),
)


@dataclass(frozen=True)
class RetrievalMetric:
    """What a report is to hold for one number; None is whatever the scorer's own parameters say.

    Attributes
    ----------
    cutoffs : list of int or None
    definition : str or None
    direction : {"i2t", "t2i"} or None
    """

    cutoffs: list[int] | None = None
    definition: str | None = None
    direction: str | None = None


def check_retrieval_metric(metric: Any) -> RetrievalMetric:
    """Read the name of a number on retrieval.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    if isinstance(metric, str):
        if metric == "rsum":
            return RetrievalMetric()
        if (share := _SHARE.fullmatch(metric)) is not None:
            return RetrievalMetric([int(share[3])], "all" if share[2] == "ndcg" else share[2], share[1])
        if (average := _MAP.fullmatch(metric)) is not None:
            return RetrievalMetric([1], "all", average[1])
        if (rank := _RANK.fullmatch(metric)) is not None:
            return RetrievalMetric([1], "hit", rank[1])
    raise ValueError(_unknown(metric, _RETRIEVAL, "a number of retrieval_report, with any k"))


def check_annotation_metric(metric: Any) -> None:
    """Check the name of a number on annotation.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    if metric not in _ANNOTATION:
        raise ValueError(_unknown(metric, _ANNOTATION, "a number of annotation_report"))


def _unknown(metric: Any, known: Sequence[str], what: str) -> str:
    if isinstance(metric, str) and _NEGATIVE + metric in known:
        return (
            f"metric={metric!r} is best where it is smallest, and searches take the largest: "
            f"ask for {_NEGATIVE + metric!r}"
        )
    near = f"; {did_you_mean(metric, known)}" if isinstance(metric, str) else ""
    return f"metric must name {what}, or be None for all of them, got {metric!r}{near}; there are {', '.join(known)}"


def one_number(report: Mapping[str, float], metric: str) -> float:
    """Return a number of a report by its checked name, larger where it is better."""
    name = metric.removeprefix(_NEGATIVE)
    return -float(report[name]) if name != metric else float(report[metric])
