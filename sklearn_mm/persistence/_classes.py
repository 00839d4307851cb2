"""Which classes a saved model may name, and what they are called there."""

import importlib
import inspect
from dataclasses import is_dataclass
from typing import Any

import sklearn
from sklearn.base import BaseEstimator
from torch import nn

import sklearn_mm

__all__ = ["estimator_class", "is_record", "module_class", "public_name", "record_class"]

_TORCH_MODULES = {"torch.nn.Identity": nn.Identity}


def public_name(cls: type) -> str:
    """Return the dotted name under which a class is public: its own, without the private parts."""
    parts = cls.__module__.split(".")
    private = [number for number, part in enumerate(parts) if part.startswith("_")]
    return ".".join([*parts[: private[0] if private else None], cls.__qualname__])


def estimator_class(name: str) -> Any:
    """Find a public estimator of scikit-learn or of this library.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    module, own_name = _split(name)
    package, *subpackages = module.split(".")
    public = {"sklearn": sklearn.__all__, "sklearn_mm": sklearn_mm.__all__}.get(package, [])
    is_public = not any(part.startswith("_") or part == "tests" for part in [*subpackages, own_name])
    if subpackages and subpackages[0] in public and is_public:
        cls = _lookup(module, own_name)
        if inspect.isclass(cls) and issubclass(cls, BaseEstimator) and cls.__module__.startswith(f"{package}."):
            return cls
    raise ValueError(f"{name!r} is no public estimator of scikit-learn or sklearn_mm")


def module_class(name: str) -> type[nn.Module]:
    """Find a torch module of this library, or `torch.nn.Identity`.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    if name in _TORCH_MODULES:
        return _TORCH_MODULES[name]
    module, own_name = _split(name)
    if module.startswith("sklearn_mm.nn."):
        cls = _lookup(module, own_name)
        if inspect.isclass(cls) and issubclass(cls, nn.Module) and cls.__module__ == module:
            return cls
    raise ValueError(f"{name!r} is no network of sklearn_mm.nn")


def record_class(name: str) -> Any:
    """Find a dataclass or named tuple of this library.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    module, own_name = _split(name)
    if module.startswith("sklearn_mm."):
        cls = _lookup(module, own_name)
        if inspect.isclass(cls) and cls.__module__ == module and is_record(cls):
            return cls
    raise ValueError(f"{name!r} is no dataclass of sklearn_mm")


def is_record(cls: type) -> bool:
    """Return whether a class is a dataclass or a named tuple."""
    return is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def _split(name: str) -> tuple[str, str]:
    module, _, own_name = name.rpartition(".")
    return module, own_name


def _lookup(module: str, name: str) -> object:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ValueError(f"{module!r} cannot be imported: {error}") from error
