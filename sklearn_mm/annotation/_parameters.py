"""What parameters and labels of an annotator must be, where the table of constraints does not say it."""

from numbers import Integral
from typing import Any

import numpy as np

from sklearn_mm.annotation._members import MEMBERS

__all__ = ["check_members", "check_number", "check_something_known", "is_something_known"]


def check_something_known(labels: Any) -> None:
    """Refuse a sparse matrix of labels that says nothing."""
    if not labels.shape[1]:
        raise ValueError("y has no labels: expected an indicator of at least one column, got none")
    if not is_something_known(labels):
        raise ValueError("no label of y is known: expected 0 or 1 for some labels of some images, got NaN everywhere")


def is_something_known(labels: Any) -> bool:
    """Return whether a sparse matrix of labels says something of any."""
    # of a sparse matrix: what is not stored is 0, and known
    return labels.nnz < labels.shape[0] * labels.shape[1] or not np.isnan(labels.data).all()


def check_members(members: Any, name_encoder: Any) -> None:
    """Refuse members that there are not, and names without a kernel that makes use of them."""
    if name_encoder is not None and (members is None or "kernel" not in members):
        raise ValueError(f"name_encoder needs 'kernel' among the members, got members={members!r}")
    if members is None:
        return
    if isinstance(members, str) or not all(isinstance(name, str) and name in MEMBERS for name in members):
        raise ValueError(f"members must be a list of some of {', '.join(map(repr, MEMBERS))}, got {members!r}")
    if len(set(members)) < len(members):
        raise ValueError(f"members must name each once, got {members!r}")


def check_number(label_count: Any, n_classes: int) -> None:
    """Refuse a fixed number of labels above that of the labels there are."""
    if isinstance(label_count, Integral) and int(label_count) > n_classes:
        raise ValueError(
            f"label_count={label_count} is more than the {n_classes} labels there are; ask for fewer, or for 'predict'"
        )
