"""Between the forms of captioned images, and what splits of them must not share."""

from sklearn_mm.model_selection._captions import explode_captions, group_captions
from sklearn_mm.model_selection._leaks import LeakReport, find_leaks

__all__ = ["LeakReport", "explode_captions", "find_leaks", "group_captions"]
