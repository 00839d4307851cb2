"""The published suites: which checks an estimator of each kind has to pass."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import SkipTest

import numpy as np
from PIL import Image
from sklearn.utils import get_tags

from sklearn_mm.testing._case import Case, named
from sklearn_mm.testing._images import IMAGE_CHECKS
from sklearn_mm.testing._media import draw_media
from sklearn_mm.testing._retrieval import RETRIEVAL_CHECKS
from sklearn_mm.testing._shared import COMMON_CHECKS, PIPELINE_CHECKS, TRANSFORMER_CHECKS
from sklearn_mm.testing._texts import TEXT_CHECKS

__all__ = [
    "check_image_estimator",
    "check_retrieval_estimator",
    "check_text_estimator",
    "image_estimator_checks",
    "retrieval_estimator_checks",
    "text_estimator_checks",
]

NamedChecks = Iterator[tuple[str, Callable[[], None]]]
_FEATURE_SIZE = 6  # pixels: 108 features


def image_estimator_checks(
    estimator: Any, images: Sequence[Image.Image] | None = None, captions: Any = None
) -> NamedChecks:
    """Yield the checks of transformers of pictures, by name.

    Parameters
    ----------
    estimator : transformer
        Of settings that make it quick: it is fitted some forty times. It is cloned, and never fitted itself.
    images : sequence of PIL.Image.Image, default=None
        At least twelve pictures to check it on; None draws eighteen of 32 pixels.
    captions : sequence of (str or list of str), default=None
        Their captions, passed to `fit` as y.

    Yields
    ------
    name : str
        "check_" and the behaviour; the docstring of the check says more.
    check : callable
        Takes no arguments; raises an AssertionError if the estimator behaves otherwise, and `unittest.SkipTest` if
        the check needs a package that is not installed.

    See Also
    --------
    check_image_estimator : Runs them all.
    sklearn.utils.estimator_checks.parametrize_with_checks : Scikit-learn's own, for tables of numbers.

    Examples
    --------
    A test that pytest reports check by check::

        @pytest.mark.parametrize(
            "check", [pytest.param(check, id=name) for name, check in image_estimator_checks(MyTransformer())]
        )
        def test_my_transformer(check):
            check()

    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sklearn_mm.testing import image_estimator_checks
    >>> checks = dict(image_estimator_checks(FunctionTransformer()))
    >>> checks["check_init_only_stores"]()
    """
    drawn_images, drawn_captions = draw_media()
    X = drawn_images if images is None else list(images)
    y = captions
    if y is None:
        # Captions of drawn pictures say nothing of others.
        y = drawn_captions if images is None else [["a picture"]] * len(X)
    yield from named((*COMMON_CHECKS, *TRANSFORMER_CHECKS, *IMAGE_CHECKS, *PIPELINE_CHECKS), Case(estimator, X, y))


def text_estimator_checks(estimator: Any, texts: Sequence[str] | None = None, y: Any = None) -> NamedChecks:
    """Yield the checks of transformers of texts, by name.

    Parameters
    ----------
    estimator : transformer
        Of settings that make it quick: it is fitted some forty times. It is cloned, and never fitted itself.
    texts : sequence of str, default=None
        At least twelve texts to check it on; None takes the captions of drawn pictures.
    y : sequence of int, default=None
        The instance that each text describes; None makes each text one of its own.

    Yields
    ------
    name : str
        "check_" and the behaviour; the docstring of the check says more.
    check : callable
        Takes no arguments; raises an AssertionError if the estimator behaves otherwise.

    See Also
    --------
    check_text_estimator : Runs them all.
    image_estimator_checks : Shows how pytest runs them one by one.

    Examples
    --------
    >>> from sklearn_mm.features import TextNGramEncoder
    >>> from sklearn_mm.testing import text_estimator_checks
    >>> encoder = TextNGramEncoder(n_components=8, max_epochs=1, random_state=0)
    >>> checks = dict(text_estimator_checks(encoder))
    >>> checks["check_one_text_is_no_sequence"]()
    """
    if texts is None:
        _, captions = draw_media()
        pairs = [(text, row) for row, own in enumerate(captions) for text in own]
        texts, instances = [text for text, _ in pairs], [row for _, row in pairs]
    else:
        instances = list(range(len(texts)))
    case = Case(estimator, list(texts), instances if y is None else list(y))
    yield from named((*COMMON_CHECKS, *TRANSFORMER_CHECKS, *TEXT_CHECKS, *PIPELINE_CHECKS), case)


def retrieval_estimator_checks(estimator: Any, images: Any = None, captions: Any = None) -> NamedChecks:
    """Yield the checks of estimators that search pictures by sentences, by name.

    Parameters
    ----------
    estimator : estimator
        With `fit`, `transform`, `transform_text`, `search_images`, `search_texts`, `predict`, `decision_function` and
        `score`, of settings that make it quick: it is fitted some sixty times. It is cloned, and never fitted itself.
    images : sequence of PIL.Image.Image or ndarray of shape (n_images, n_features), default=None
        At least twelve pictures, or features of pictures, to check it on. None draws eighteen, and takes their pixels
        as features where the estimator's tags say that it takes arrays of two dimensions.
    captions : list of list of str, default=None
        Their captions, necessary with `images`; one to three for each.

    Yields
    ------
    name : str
        "check_" and the behaviour; the docstring of the check says more.
    check : callable
        Takes no arguments; raises an AssertionError if the estimator behaves otherwise.

    Raises
    ------
    ValueError
        Images are given without captions, or the other way round.

    See Also
    --------
    check_retrieval_estimator : Runs them all.
    image_estimator_checks : Shows how pytest runs them one by one.

    Examples
    --------
    >>> from sklearn_mm.retrieval import JointEmbeddingRanker
    >>> from sklearn_mm.testing import retrieval_estimator_checks
    >>> ranker = JointEmbeddingRanker(n_components=8, max_epochs=1, random_state=0)
    >>> checks = dict(retrieval_estimator_checks(ranker))
    >>> checks["check_k_must_fit_the_gallery"]()
    """
    if (images is None) != (captions is None):
        raise ValueError("expected both images and captions, or neither")
    if images is None:
        images, captions = draw_media()
        # A ranker without an image encoder takes features.
        if get_tags(estimator).input_tags.two_d_array:
            images = np.stack([_features(image) for image in images])
    X = images if isinstance(images, np.ndarray) else list(images)
    case = Case(estimator, X, [list(own) for own in captions])
    yield from named((*COMMON_CHECKS, *TRANSFORMER_CHECKS, *RETRIEVAL_CHECKS), case)


def check_image_estimator(estimator: Any, images: Sequence[Image.Image] | None = None, captions: Any = None) -> None:
    """Check that a transformer of pictures keeps scikit-learn's contract.

    The checks are scikit-learn's, brought from tables of numbers to pictures (parameters, repeated fits, pickles, row
    by row answers, feature names, pipelines, searches), and what pictures add: every form in which users hold them,
    every mode and size, and errors that name the row.

    Parameters
    ----------
    estimator, images, captions
        As in `image_estimator_checks`.

    Raises
    ------
    AssertionError
        The first check that fails; its name is in the notes of the error.

    Examples
    --------
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sklearn_mm.testing import check_image_estimator
    >>> check_image_estimator(FunctionTransformer())
    Traceback (most recent call last):
    ...
    AssertionError: FunctionTransformer.transform before fit: expected NotFittedError, got an answer
    check_unfitted_estimators_say_so
    """
    _run_all(image_estimator_checks(estimator, images, captions))


def check_text_estimator(estimator: Any, texts: Sequence[str] | None = None, y: Any = None) -> None:
    """Check that a transformer of texts keeps scikit-learn's contract.

    Parameters
    ----------
    estimator, texts, y
        As in `text_estimator_checks`.

    Raises
    ------
    AssertionError
        The first check that fails; its name is in the notes of the error.

    Examples
    --------
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sklearn_mm.testing import check_text_estimator
    >>> check_text_estimator(FunctionTransformer())
    Traceback (most recent call last):
    ...
    AssertionError: FunctionTransformer.transform before fit: expected NotFittedError, got an answer
    check_unfitted_estimators_say_so
    """
    _run_all(text_estimator_checks(estimator, texts, y))


def check_retrieval_estimator(estimator: Any, images: Any = None, captions: Any = None) -> None:
    """Check that an estimator that searches pictures by sentences keeps the contract.

    Parameters
    ----------
    estimator, images, captions
        As in `retrieval_estimator_checks`.

    Raises
    ------
    AssertionError
        The first check that fails; its name is in the notes of the error.

    Examples
    --------
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sklearn_mm.testing import check_retrieval_estimator
    >>> check_retrieval_estimator(FunctionTransformer())
    Traceback (most recent call last):
    ...
    AssertionError: FunctionTransformer.transform before fit: expected NotFittedError, got an answer
    check_unfitted_estimators_say_so
    """
    _run_all(retrieval_estimator_checks(estimator, images, captions))


def _run_all(checks: NamedChecks) -> None:
    for name, check in checks:
        try:
            check()
        except SkipTest:
            continue
        except Exception as error:
            error.add_note(name)
            raise


def _features(image: Image.Image) -> np.ndarray:
    """Return a small picture's pixels as one row of float32 in [0, 1]."""
    small = np.asarray(image.convert("RGB").resize((_FEATURE_SIZE, _FEATURE_SIZE)), dtype=np.float32)
    return small.ravel() / 255
