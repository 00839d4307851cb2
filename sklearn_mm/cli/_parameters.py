"""Parameters that several parts of a model have."""

from collections.abc import Mapping
from typing import Any

__all__ = ["set_everywhere"]


def set_everywhere(model: Any, values: Mapping[str, Any]) -> Any:
    """Set parameters of some names in all parts of a model that are of this library; return the model.

    Those of scikit-learn have some of the names too, but a pipeline that is told to be verbose writes to stdout.
    """
    parts = {"": model}
    parts |= {f"{name}__": part for name, part in model.get_params().items() if hasattr(part, "get_params")}
    ours = {start: part for start, part in parts.items() if type(part).__module__.startswith("sklearn_mm.")}
    names = {start + name: name for start, part in ours.items() for name in part.get_params(deep=False)}
    return model.set_params(**{whole: values[name] for whole, name in names.items() if name in values})
