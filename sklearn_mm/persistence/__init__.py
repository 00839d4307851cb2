"""Estimators on disk: pickles that open anywhere, and folders with nothing executable in them."""

from sklearn_mm.persistence._folder import load, save
from sklearn_mm.persistence._pickle import PickleStateMixin as PickleStateMixin

__all__ = ["load", "save"]
