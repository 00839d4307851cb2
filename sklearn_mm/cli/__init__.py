"""The command line: ``sklearn-mm`` and ``python -m sklearn_mm``."""

from sklearn_mm.cli._main import main

__all__ = ["main"]
