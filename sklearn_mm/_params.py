"""Parameter constraints that several estimators share, in scikit-learn's vocabulary.

The one module that touches scikit-learn's private parameter validation.
"""

import os
from numbers import Integral, Real
from typing import Any

import torch
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    StrOptions,
)

from sklearn_mm._unicode import UNICODE_FORMS

__all__ = [
    "DEVICE_CONSTRAINTS",
    "TOKENIZER_CONSTRAINTS",
    "HasMethods",
    "Integral",
    "Interval",
    "InvalidParameterError",
    "Real",
    "StrOptions",
    "a_path",
    "check_path",
    "non_negative_int",
    "path_or_vectors",
    "positive_int",
    "positive_real",
    "validate_params",
]

positive_int = Interval(Integral, 1, None, closed="left")
non_negative_int = Interval(Integral, 0, None, closed="left")
positive_real = Interval(Real, 0, None, closed="neither")


def _names_something(path: Any) -> bool:
    if isinstance(path, str):
        return bool(path.strip())
    # Path("") is Path("."): who means the folder in which the process works writes "."
    return isinstance(path, os.PathLike) and os.fspath(path) not in ("", b"", ".", b".")


class _Path(HasMethods):  # scikit-learn takes no constraints but its own
    def __init__(self, beside: str = "") -> None:
        super().__init__("__fspath__")
        self._beside = beside  # what the parameter may be besides a path

    def is_satisfied_by(self, val: Any) -> bool:
        return _names_something(val) or (bool(self._beside) and not isinstance(val, str | os.PathLike))

    def __str__(self) -> str:
        return f'a str or a path-like that names a folder or a file ("." for the working directory){self._beside}'


a_path = _Path()
path_or_vectors = _Path(", or word vectors")


def check_path(path: Any, name: str) -> None:
    """Refuse a path that is empty, which would be the working directory.

    Raises
    ------
    ValueError
        It is.
    """
    if not _names_something(path):
        raise ValueError(f"{name} must name a file or a folder, got {path!r}; '.' is the working directory")


DEVICE_CONSTRAINTS: dict[str, list[Any]] = {
    "device": [str, torch.device],
    "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
}

TOKENIZER_CONSTRAINTS: dict[str, list[Any]] = {
    "lowercase": ["boolean"],
    "token_pattern": [str, None],
    # a share of the texts, or a number of them
    "min_df": [Interval(Real, 0, 1, closed="both"), positive_int],
    "max_features": [positive_int, None],
    "analyzer": [StrOptions({"word"}), callable],
    "unicode_form": [StrOptions(set(UNICODE_FORMS)), None],
}


def validate_params(estimator: Any) -> None:
    """Check the constructor's parameters of an estimator against its ``_parameter_constraints``.

    Raises
    ------
    InvalidParameterError
        A ValueError that names the parameter, what it must be and what it is.
    """
    estimator._validate_params()
