"""Checks that estimators of pictures and texts keep scikit-learn's contract."""

from sklearn_mm.testing._suites import (
    check_image_estimator,
    check_retrieval_estimator,
    check_text_estimator,
    image_estimator_checks,
    retrieval_estimator_checks,
    text_estimator_checks,
)

__all__ = [
    "check_image_estimator",
    "check_retrieval_estimator",
    "check_text_estimator",
    "image_estimator_checks",
    "retrieval_estimator_checks",
    "text_estimator_checks",
]
