"""Where prepared data sets are kept, and how an optional package is asked for."""

import importlib
import os
from pathlib import Path
from types import ModuleType

__all__ = ["data_home", "import_optional"]


def data_home(folder: str | os.PathLike[str] | None) -> Path:
    """Return the folder for prepared data: the one given, SKLEARN_MM_DATA, or ``~/sklearn_mm_data``."""
    return Path(folder or os.environ.get("SKLEARN_MM_DATA") or "~/sklearn_mm_data").expanduser()


def import_optional(module: str, caller: str, extra: str) -> ModuleType:
    """Import a package that an extra brings.

    Raises
    ------
    ImportError
        It is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{caller} needs the package {module!r}: pip install 'sklearn-mm[{extra}]'", name=module
        ) from error
