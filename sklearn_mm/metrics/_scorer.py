"""Retrieval as scikit-learn's searches and cross-validation want it scored."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator

from sklearn_mm._checks import check_captions
from sklearn_mm._unicode import normal_form
from sklearn_mm.metrics._bootstrap import Evidence
from sklearn_mm.metrics._inside import enter, warn_of_trained_rows
from sklearn_mm.metrics._merged_rows import merge_rows
from sklearn_mm.metrics._named_scorers import from_one_pass
from sklearn_mm.metrics._one_number import RetrievalMetric, check_retrieval_metric, one_number
from sklearn_mm.metrics._ranking import check_offsets, check_retrieval_input
from sklearn_mm.metrics._ranks import check_weights
from sklearn_mm.metrics._report import DIRECTIONS, check_report_options, report_directions
from sklearn_mm.registry import stored_as

__all__ = ["RetrievalScorer", "embed_captions", "hub_offsets", "unwrap_ranker"]


@stored_as("metrics.RetrievalScorer")
class RetrievalScorer(BaseEstimator):
    """Score how well images find their captions and captions their images.

    To be passed as `scoring`: the images and captions it is called with are queries and galleries, whatever
    gallery the estimator has. Images are embedded once, by ``estimator.transform``, and captions once, by
    the ``transform_text`` of the estimator itself, of the last step of a `Pipeline` or of a fitted search's
    best estimator.

    Parameters
    ----------
    k : int or sequence of int, default=(1, 5, 10)
        How many of the items found are looked at.
    direction : {"both", "i2t", "t2i"}, default="both"
        "i2t": images are the queries, captions the gallery; "t2i": the other way round. Keys of the other
        direction are left out, and "rsum" adds up what is there.
    definition : {"hit", "recall", "all"}, default="hit"
        See `retrieval_report`.
    equal_captions : {"right", "wrong"}, default="right"
        Of images with a caption of one wording ("a photo of a cat"), "right" takes each for a right answer to it, and
        each such caption for a right one of theirs, as training does. "wrong" counts as papers do: the image that the
        caption was written for is right alone. It can then be found by chance at best: 100 images with 4 captions in
        all have a hit@1 of 0.04.
    metric : str, default=None
        Give one number instead of a dict, as halving searches, learning curves and a search's ``refit=True`` want it:
        "rsum" (with `k`, `direction` and `definition`), or "i2t_hit@5", "t2i_recall@10", "t2i_ndcg@10" and their like
        with any k, and "i2t_map@r", to which the three others are of no effect. Of ranks the smallest is the best and a
        search takes the largest, so they are called "neg_t2i_median_rank" and given with the sign changed.

    Raises
    ------
    ValueError
        ``metric`` names no number; the message lists those there are. It is looked at here, as a search fits its
        first model before it calls a scorer, and takes an error there for a bad score.

    See Also
    --------
    retrieval_report : The numbers, from embeddings.
    named_scorers : Several numbers for one search.

    Notes
    -----
    The similarity is that of the estimator (its parameter `similarity`), cosine if it names none. What is near every
    query is corrected for as the estimator does it in its own searches (its attribute `hubness_`), if it does.

    From a dict a search has to be told which number to refit by, ``refit="rsum"``: with ``refit=True`` scikit-learn
    fits everything first and then says so, where with `named_scorers` it says so first. Searches take the largest
    number for the best: do not refit by a median or mean rank. With a ``metric`` there is nothing to say.

    `sample_weight` and `groups` reach the scorer under metadata routing, when asked for by
    ``set_score_request``. `sample_weight` weighs images, and captions as their images. Images of one group
    and their captions are neither negatives nor positives of each other, as in training; without routing
    groups steer the splitter alone.

    Pictures that stand in several rows, one for each caption, are one image each with all of these captions, and are
    embedded once; a `MergedRowsWarning` says so. That is told by paths, or by one object in several rows: equal
    features need not be one picture, and a model to which all are alike must not find them all.

    Any number of threads may use a scorer at the same time.

    Examples
    --------
    >>> from sklearn_mm.metrics import RetrievalScorer
    >>> class LetterRanker:
    ...     def transform(self, X):
    ...         return X
    ...     def transform_text(self, texts):
    ...         return [[text.count("a"), text.count("b")] for text in texts]
    >>> scores = RetrievalScorer(k=1)(LetterRanker(), [[1, 0], [0, 1]], [["aa", "aab"], "b"])
    >>> scores["i2t_hit@1"], scores["t2i_hit@1"], scores["n_texts"]
    (1.0, 1.0, 3)
    >>> RetrievalScorer(metric="t2i_hit@1")(LetterRanker(), [[1, 0], [0, 1]], [["aa", "aab"], "b"])
    1.0
    """

    metric: str | None = None  # of scorers saved before there was any

    def __init__(
        self,
        k: int | Sequence[int] = (1, 5, 10),
        direction: str = "both",
        definition: str = "hit",
        equal_captions: str = "right",
        metric: str | None = None,
    ):
        if metric is not None:  # not in a call: a search would have fitted its first model for nothing
            check_retrieval_metric(metric)
        self.k = k
        self.direction = direction
        self.definition = definition
        self.equal_captions = equal_captions
        self.metric = metric

    def __call__(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Any:
        """Score a fitted estimator.

        Parameters
        ----------
        estimator : estimator with transform and transform_text
            Fitted; or a pipeline or search around one.
        X : sequence of length n_images
            Images or their features, as the estimator takes them.
        y : sequence of (str or sequence of str), length n_images
            The captions of each image.
        sample_weight : array-like of shape (n_images,), optional
            Weights of the images.
        groups : array-like of shape (n_images,), optional
            Groups of images that are no negatives of each other.

        Returns
        -------
        dict of str to float, or float
            As `retrieval_report` returns it; the one number where there is a ``metric``.

        Raises
        ------
        TypeError
            The estimator has no ``transform_text``.
        ValueError
            A parameter is none of its options, or images, captions, weights and groups do not fit together.
        """
        report = self._report(estimator, X, y, sample_weight, groups)
        return report if self.metric is None else one_number(report, self.metric)

    def _report(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
        evidence: list[Evidence] | None = None,
    ) -> dict[str, float]:
        """Return the numbers that are asked for, and add what they are made of to `evidence`."""
        if self.direction not in ("both", *DIRECTIONS):
            raise ValueError(f"direction must be 'both', 'i2t' or 't2i', got {self.direction!r}")
        if self.equal_captions not in ("right", "wrong"):
            raise ValueError(f"equal_captions must be 'right' or 'wrong', got {self.equal_captions!r}")
        asked = RetrievalMetric() if self.metric is None else check_retrieval_metric(self.metric)
        cutoffs = asked.cutoffs or check_report_options(self.k, self.definition)
        direction = asked.direction or self.direction
        arguments = (estimator, X, y, sample_weight, groups)
        embedded = from_one_pass(self, arguments, lambda: _embed(*arguments))
        return report_directions(
            embedded.image,
            embedded.text,
            embedded.owner,
            embedded.label,
            embedded.weight,
            embedded.wording if self.equal_captions == "right" else None,
            embedded.offsets,
            cutoffs=cutoffs,
            definition=asked.definition or self.definition,
            similarity=embedded.similarity,
            directions=DIRECTIONS if direction == "both" else (direction,),
            evidence=evidence,
        )

    def score(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> float:
        """Declare which metadata the scorer takes; call the scorer itself instead."""
        raise TypeError("a RetrievalScorer scores an estimator: call it as scorer(estimator, X, y)")


class _Embedded(NamedTuple):
    """What a report is made of: as `report_directions` takes it."""

    image: Any
    text: Any
    owner: np.ndarray
    label: np.ndarray | None
    weight: np.ndarray | None
    wording: np.ndarray
    offsets: Any
    similarity: Any


def _embed(estimator: Any, X: Any, y: Any, sample_weight: Any, groups: Any) -> _Embedded:
    """Embed images and captions, each once."""
    captions = check_captions(y, X)
    unwrap_ranker(estimator)  # says what is missing before pictures are read
    X, captions, sample_weight, groups = merge_rows(X, captions, sample_weight, groups, stacklevel=3)
    ranker, images = enter(estimator, X)
    warn_of_trained_rows(ranker, images, captions)
    text_embedding, wording = embed_captions(ranker, captions.texts)
    image, text, owner, label = check_retrieval_input(
        ranker.transform(images), text_embedding, captions.image_index, groups
    )
    similarity = getattr(ranker, "similarity", "cosine")
    offsets = check_offsets(*hub_offsets(ranker, image, text), len(image), len(text), similarity)
    weight = check_weights(sample_weight, captions.n_images, "images")
    return _Embedded(image, text, owner, label, weight, wording, offsets, similarity)


def embed_captions(ranker: Any, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Embed captions, those of one wording once.

    Returns
    -------
    embedding : ndarray of shape (n_texts, n_components)
    wording : ndarray of shape (n_texts,), int64
        Equal for texts of one wording.
    """
    number: dict[str, int] = {}
    # In the order in which they are first met: without equal ones the batches are those of the texts as they stand.
    wording = np.array([number.setdefault(normal_form(text), len(number)) for text in texts], dtype=np.int64)
    _, first = np.unique(wording, return_index=True)
    return np.asarray(ranker.transform_text([texts[row] for row in first]))[wording], wording


def hub_offsets(ranker: Any, image: Any, text: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return what a fitted ranker takes off the scores of embedded images and texts; None where it does not."""
    hubness = getattr(ranker, "hubness_", None)
    return (None, None) if hubness is None else (hubness.image_offsets(image), hubness.text_offsets(text))


def unwrap_ranker(estimator: Any) -> Any:
    """Return what has ``transform_text``: the estimator, its last step or its best.

    Raises
    ------
    TypeError
        There is none.
    """
    inner = estimator
    while not hasattr(inner, "transform_text"):
        if hasattr(inner, "steps"):
            inner = inner.steps[-1][1]
        elif hasattr(inner, "best_estimator_"):
            inner = inner.best_estimator_
        else:
            raise TypeError(
                "expected an estimator that embeds images by transform and texts by transform_text, "
                f"or a pipeline that ends in one, got {type(estimator).__name__}"
            )
    return inner
