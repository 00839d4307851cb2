"""Search pictures by sentences, and label them, as scikit-learn estimators.

The subpackages are loaded when first used: ``import sklearn_mm`` itself loads no torch.
"""

import importlib
from types import ModuleType

from sklearn_mm._version import __version__

_SUBPACKAGES = (
    "annotation",
    "cli",
    "datasets",
    "display",
    "exceptions",
    "features",
    "index",
    "losses",
    "metrics",
    "model_selection",
    "persistence",
    "retrieval",
    "scaling",
    "testing",
    "towers",
)

__all__ = ["__version__", *_SUBPACKAGES]


# called only for what is not there yet: an imported subpackage is an attribute of its own
def __getattr__(name: str) -> ModuleType:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"sklearn_mm.{name}")
    raise AttributeError(f"module 'sklearn_mm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
