"""Which classes a saved model may name, and what they are called there."""

import importlib
import inspect
from dataclasses import is_dataclass
from typing import Any

import sklearn
from sklearn.base import BaseEstimator
from torch import nn

from sklearn_mm.registry import find, name_of

__all__ = ["estimator_class", "is_record", "module_class", "public_name", "record_class"]

_OURS = "sklearn_mm."
_IDENTITY = "torch.nn.Identity"


def public_name(cls: type) -> str:
    """Return the dotted name under which a class is saved: its stored one, or its own without the private parts."""
    stored = name_of(cls)
    if stored is not None:
        return f"{_OURS}{stored}"
    if cls is nn.Identity:
        return _IDENTITY
    # "sklearn.svm._classes.SVC" is sklearn.svm.SVC: private files of scikit-learn may be other ones in its next
    # version.
    parts = cls.__module__.split(".")
    private = [number for number, part in enumerate(parts) if part.startswith("_")]
    return ".".join([*parts[: private[0] if private else None], cls.__qualname__])


def estimator_class(name: str) -> Any:
    """Find a public estimator of scikit-learn, or one that is stored by this library.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    cls = _stored(name) if name.startswith(_OURS) else _scikit_learns(name)
    if cls is not None and issubclass(cls, BaseEstimator):
        return cls
    raise ValueError(f"{name!r} is no public estimator of scikit-learn or sklearn_mm")


def module_class(name: str) -> type[nn.Module]:
    """Find a torch module that is stored by this library, or `torch.nn.Identity`.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    cls = nn.Identity if name == _IDENTITY else _stored(name)
    if cls is not None and issubclass(cls, nn.Module):
        return cls
    raise ValueError(f"{name!r} is no network of sklearn_mm")


def record_class(name: str) -> Any:
    """Find a dataclass or named tuple that is stored by this library.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    cls = _stored(name)
    if cls is not None and is_record(cls):
        return cls
    raise ValueError(f"{name!r} is no dataclass of sklearn_mm")


def is_record(cls: type) -> bool:
    """Return whether a class is a dataclass or a named tuple."""
    return is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def _stored(name: str) -> type[Any] | None:
    if not name.startswith(_OURS):
        return None
    try:
        return find(name.removeprefix(_OURS))
    except ValueError:
        return None


def _scikit_learns(name: str) -> type[Any] | None:
    """Return what scikit-learn has under a public name, if anything."""
    module, _, own_name = name.rpartition(".")
    package, *subpackages = module.split(".")
    # Checked before anything is imported: the name comes from a file that may be a stranger's.
    is_public = not any(part.startswith("_") or part == "tests" for part in [*subpackages, own_name])
    if package != "sklearn" or not subpackages or subpackages[0] not in sklearn.__all__ or not is_public:
        return None
    try:
        found = getattr(importlib.import_module(module), own_name, None)
    except ImportError as error:
        raise ValueError(f"{module!r} cannot be imported: {error}") from error
    # A module has also what it imports: a class of another package, or of the standard library, is none of
    # scikit-learn's.
    return found if inspect.isclass(found) and found.__module__.startswith("sklearn.") else None
