"""Estimators on disk: pickles that open anywhere, and folders with nothing executable in them."""

from sklearn_mm.persistence._folder import load, save
from sklearn_mm.persistence._format_1 import find_old_modules
from sklearn_mm.persistence._pickle import PickleStateMixin as PickleStateMixin

__all__ = ["load", "save"]

find_old_modules()  # every estimator imports this package, and its class is what a pickle names first
