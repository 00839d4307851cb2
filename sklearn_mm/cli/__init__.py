"""The command line: ``sklearn-mm`` and ``python -m sklearn_mm``."""
