"""Several rankers as one: their scores added, each divided by its spread."""

from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import Bunch, check_random_state, get_tags
from sklearn.utils.metaestimators import _BaseComposition, available_if
from sklearn.utils.validation import check_is_fitted

from sklearn_mm._checks import check_texts
from sklearn_mm._device import generator_from
from sklearn_mm._docs import shared_docs
from sklearn_mm._params import HasMethods, Interval, StrOptions, positive_int, validate_params
from sklearn_mm._unreadable import refuse_unreadable
from sklearn_mm.metrics import unwrap_ranker
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.registry import stored_as
from sklearn_mm.retrieval._blend import join_spaces
from sklearn_mm.retrieval._calibration import CALIBRATION_CONSTRAINTS, hold_out
from sklearn_mm.retrieval._correlation import CorrelationRanker
from sklearn_mm.retrieval._data import CaptionedImages
from sklearn_mm.retrieval._ensemble_rows import AlignedMembers, TrainingRows, common_rows
from sklearn_mm.retrieval._hubness import NearestNeighborNormalization
from sklearn_mm.retrieval._members import (
    FittedMember,
    check_member,
    embed_images,
    embed_readable,
    embed_texts,
    fit_member,
    seeded,
)
from sklearn_mm.retrieval._ranker import JointEmbeddingRanker
from sklearn_mm.retrieval._search import SEARCH_CONSTRAINTS, JointSpaceMixin
from sklearn_mm.towers import TrainedRows

__all__ = ["RankerEnsemble"]

# Members are fitted again where more than this share of the images was held out of them.
_LARGE_SHARE = 0.05


def _members_continue(ensemble: Any) -> bool:
    """Whether each member has `partial_fit`."""
    return all(hasattr(member, "partial_fit") for _, member in ensemble._listed_members())


@shared_docs
@stored_as("retrieval.RankerEnsemble")
class RankerEnsemble(JointSpaceMixin, MetaEstimatorMixin, PickleStateMixin, _BaseComposition):
    """Add the scores of several rankers, each divided by its spread.

    Parameters
    ----------
    estimators : list of (str, ranker), ranker or None, default=None
        The members and their names. A member embeds images by `transform` and texts by `transform_text`, which are
        compared by their cosine; it is a ranker of this library or of one's own, a `Pipeline` that ends in one (which
        chooses and prepares the columns of X that its ranker sees), a search around one, or an ensemble. "drop" leaves
        a member out, as ``set_params(name="drop")`` does. One ranker alone stands for itself with `n_seeds` seeds. None
        takes a `CorrelationRanker` ("solved") and a `JointEmbeddingRanker` ("trained"), both by their defaults.
    weights : "auto", array-like of shape (n_members,) or None, default="auto"
        How much each member counts. None: all the same. "auto" holds out images, at most 200 of them, and takes the
        weights by which the members fitted on the others tell the captions of these images from each other; equal ones
        count as much as ten images there. Where more than a twentieth of the images was held out (of fewer than 4,000
        all told), the members are then fitted once more, on all of them.
    n_seeds : int, default=1
        With one ranker for `estimators`: it is fitted so often, each time with other seeds.
    validation_fraction : float, default=0.2
        Share of the images that "auto" holds out, whole groups at a time and equal rows together; none of fewer than
        ten, when all members count the same.
    random_state : int, RandomState or None, default=None
        Of what is held out, and of every `random_state` of None in members.
    n_jobs : int, default=None
        Members fitted at the same time, by joblib: in processes, unless `joblib.parallel_config` says otherwise.
        Results are the same to the bit, if those of a member do not depend on how many threads torch computes with
        (``n_jobs=1`` in members sees to it).
    %(search_parameters)s
    %(calibration)s

    Attributes
    ----------
    estimators_ : list of estimators
        The fitted members, without those dropped. Their own galleries are empty.
    named_estimators_ : Bunch
        The same by name.
    weights_ : ndarray of shape (n_members,)
        Of the fitted members; the sum is 1.
    spreads_ : ndarray of shape (n_members,)
        Standard deviation of each member's cosines of training images and texts.
    gallery_texts_ : ndarray of shape (n_gallery_texts,), object or y's dtype
        The texts that `search_texts` and `predict` choose from: after `fit` the different captions, sorted.
    %(hubness_)s
    n_features_in_ : int
        Width of X, as the first member has it.
    feature_names_in_ : ndarray of str
        Names of the columns of X, as the first member has them.

    See Also
    --------
    CorrelationRanker, JointEmbeddingRanker : Members.
    sklearn.ensemble.VotingClassifier : The same of classifiers.

    Notes
    -----
    The score of an image and a text is the weighted mean of ``cosine / spread``, divided by what it is for a text
    that every member finds equal to the image. `transform` puts the members' unit vectors side by side, each times
    ``sqrt(weight / spread)`` and all brought to unit length: their inner product is that score, and one gallery and
    one index do for all members. It is as wide as all members together. Training images and texts are embedded by
    the members alone, and kept once, in the ensemble's galleries, 4 bytes a component and item.

    What several members need is computed once if it stands in front: ``make_pipeline(FullNetworkEmbedding(...),
    RankerEnsemble(...))``; members then choose columns of it, by a pipeline of their own. A frozen text encoder in
    several members reads the texts once for each.

    `sample_weight` and `groups` are given on to all members. With metadata routing on, a member that was told
    ``set_fit_request(groups=False)`` is not given them.

    %(threads)s

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn_mm.retrieval import JointEmbeddingRanker, RankerEnsemble
    >>> captions = [f"a {colour} {shape}" for colour in ("red", "green", "blue") for shape in ("dot", "box")] * 8
    >>> features = np.tile(np.eye(6), (8, 1)) + np.random.default_rng(0).normal(0, 0.1, (48, 6))
    >>> words = JointEmbeddingRanker(n_components=16, batch_size=8, max_epochs=40)
    >>> tfidf = JointEmbeddingRanker(TfidfVectorizer(), n_components=16, batch_size=8, max_epochs=40)
    >>> ensemble = RankerEnsemble([("words", words), ("tfidf", tfidf)], weights=None, random_state=0)
    >>> ensemble.fit(features, captions).predict(features[:3])
    array(['a red dot', 'a red box', 'a green dot'], dtype=object)
    >>> ensemble.transform(features).shape
    (48, 32)
    """

    _parameter_constraints: dict[str, Any] = {
        **SEARCH_CONSTRAINTS,
        **CALIBRATION_CONSTRAINTS,
        "estimators": [list, HasMethods(["fit", "transform"]), None],
        "weights": [StrOptions({"auto"}), "array-like", None],
        "n_seeds": [positive_int],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    }

    similarity = "cosine"

    estimators_: list[Any]
    weights_: np.ndarray
    spreads_: np.ndarray

    def __init__(
        self,
        estimators: Any = None,
        *,
        weights: Any = "auto",
        n_seeds: int = 1,
        validation_fraction: float = 0.2,
        random_state: Any = None,
        n_jobs: int | None = None,
        hubness: str | NearestNeighborNormalization | None = "auto",
        index: Any = None,
        calibration_fraction: float | None = None,
    ) -> None:
        self.estimators = estimators
        self.weights = weights
        self.n_seeds = n_seeds
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.hubness = hubness
        self.index = index
        self.calibration_fraction = calibration_fraction

    # Parameters ---------------------------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with `deep`, members by their names, and their parameters as ``name__parameter``."""
        if isinstance(self.estimators, list):
            params: dict[str, Any] = self._get_params("estimators", deep=deep)
            return params
        return BaseEstimator.get_params(self, deep=deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters: ``name=ranker`` or ``name="drop"``, and ``name__parameter=value``."""
        self._set_params("estimators", **params)
        return self

    def _listed_members(self) -> list[tuple[str, Any]]:
        """Return names and members, those dropped left out."""
        if self.estimators is None:
            return [("solved", CorrelationRanker()), ("trained", JointEmbeddingRanker())]
        if not isinstance(self.estimators, list):
            return [(f"seed_{number}", self.estimators) for number in range(self.n_seeds)]
        if not all(isinstance(item, list | tuple) and len(item) == 2 for item in self.estimators):
            raise ValueError(f"estimators must be a list of (name, ranker), got {self.estimators!r}")
        return [(name, member) for name, member in self.estimators if not _is_dropped(member)]

    def _checked_members(self) -> list[tuple[str, Any]]:
        """Return names and members; none is changed."""
        members = self._listed_members()
        if not members:
            raise ValueError("estimators must hold at least one ranker that is not dropped")
        if isinstance(self.estimators, list):
            names = [name for name, _ in self.estimators]
            if not all(isinstance(name, str) for name in names):
                raise ValueError(f"expected a str as the name of each member, got {names!r}")
            self._validate_names(names)
        if self.n_seeds > 1 and (self.estimators is None or isinstance(self.estimators, list)):
            raise ValueError(
                f"n_seeds={self.n_seeds} fits one ranker so often, and estimators are several; make the one an "
                "ensemble in it: ('name', RankerEnsemble(ranker, n_seeds=3))"
            )
        for name, member in members:
            check_member(name, member)
        return members

    def _new_members(self, random_state: np.random.RandomState) -> list[tuple[str, Any]]:
        """Return names and clones with seeds, to be fitted."""
        anew = self.n_seeds > 1
        return [(name, seeded(clone(member), random_state, anew=anew)) for name, member in self._checked_members()]

    def _given_weights(self, n_members: int) -> np.ndarray:
        """Return the weights asked for, and equal ones where they are None or to be learnt."""
        if self.weights is None or isinstance(self.weights, str):
            return np.full(n_members, 1 / n_members)
        weights = np.asarray(self.weights, dtype=np.float64)
        is_used = np.ones(n_members, dtype=bool)
        if isinstance(self.estimators, list):
            is_used = np.array([not _is_dropped(member) for _, member in self.estimators])
        if weights.shape != is_used.shape:
            raise ValueError(f"expected a weight for each of {len(is_used)} members, got the shape {weights.shape}")
        kept = weights[is_used]
        if not np.isfinite(kept).all() or kept.min() < 0 or not kept.sum() > 0:
            raise ValueError(f"weights must be finite, not negative and not all 0, got {self.weights!r}")
        return kept / kept.sum()

    # Fitting ------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the members, and make the training data the galleries.

        Parameters
        ----------
        X : array-like, sparse matrix or frame of shape (n_images, n_features), or images, as the members take them
        y : sequence of (str or sequence of str), length n_images
            The captions of each image.
        sample_weight : array-like of shape (n_images,), optional
            How much each image counts; 0 leaves it out.
        groups : array-like of shape (n_images,), optional
            Images of one group are no negatives of each other, and are held out together.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            There is no member, names are not different, a member compares by another similarity than the cosine, or
            weights do not fit the members; and what members raise.
        TypeError
            A member is no ranker, or does not take the `sample_weight` or `groups` given.
        """
        validate_params(self)
        self._check_search_parameters()
        rows = TrainingRows.check(X, y, sample_weight, groups)
        random_state = check_random_state(self.random_state)
        members = self._new_members(random_state)
        weights = self._given_weights(len(members))
        rng = generator_from(random_state)
        weight, kept_out = hold_out(self.calibration_fraction, rows.weight, rows.groups, rows.captions.n_images, rng)
        rows = replace(rows, weight=weight)
        self._trained_rows = TrainedRows.of(rows.X, rows.captions, rows.weight)
        held_out = rows.hold_out(self.validation_fraction, rng) if isinstance(self.weights, str) else None
        aligned = AlignedMembers.of(self._fit_members(members, rows, held_out), rows)
        spreads = aligned.spreads(rng)
        if held_out is not None:
            weights = aligned.learnt_weights(held_out, spreads)
            if len(held_out) > _LARGE_SHARE * len(rows.images):
                aligned = AlignedMembers.of(self._fit_members(members, rows), rows)
                spreads = aligned.spreads(rng)
        self._keep([name for name, _ in members], aligned, weights, spreads, rng)
        return self._calibrate(aligned.rows.captions, aligned.kept, kept_out)

    def _fit_members(
        self, members: list[tuple[str, Any]], rows: TrainingRows, held_out: CaptionedImages | None = None
    ) -> list[FittedMember]:
        """Fit clones of members, on rows that are not held out."""
        tasks = (
            delayed(fit_member)(name, clone(member), "fit", rows.X, rows.y, rows.metadata(held_out), rows.texts)
            for name, member in members
        )
        return list(Parallel(n_jobs=self.n_jobs)(tasks))

    @available_if(_members_continue)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train members further by their `partial_fit`, one after the other. The rows become the galleries.

        There is such a method if all members have one. Nothing is held out: of ``weights="auto"`` those stay that
        `fit` has learnt, and without a `fit` before they are equal.

        Parameters
        ----------
        X, y, sample_weight, groups
            As in `fit`.

        Returns
        -------
        self
        """
        validate_params(self)
        self._check_search_parameters()
        rows = TrainingRows.check(X, y, sample_weight, groups)
        before = getattr(self, "_trained_rows", None)
        self._trained_rows = TrainedRows.of(rows.X, rows.captions, rows.weight).joined(before)
        random_state = check_random_state(self.random_state)
        if self.__sklearn_is_fitted__():
            members = list(zip(self._names, self.estimators_, strict=True))
            weights = self.weights_ if isinstance(self.weights, str) else self._given_weights(len(members))
        else:
            members = self._new_members(random_state)
            weights = self._given_weights(len(members))
        # In this process: what an optimiser keeps from call to call does not travel to another.
        fitted = [
            fit_member(name, member, "partial_fit", rows.X, rows.y, rows.metadata(), rows.texts)
            for name, member in members
        ]
        aligned = AlignedMembers.of(fitted, rows)
        rng = generator_from(random_state)
        return self._keep([name for name, _ in members], aligned, weights, aligned.spreads(rng), rng)

    def _keep(
        self,
        names: list[str],
        aligned: AlignedMembers,
        weights: np.ndarray,
        spreads: np.ndarray,
        rng: np.random.Generator,
    ) -> Self:
        self._names = names
        self.estimators_ = aligned.rankers
        self.weights_, self.spreads_ = weights, spreads
        image, text = self._join(aligned.images), self._join(aligned.texts)
        self._n_features_out = image.shape[1]
        self._set_hubness(image, text, aligned.rows.texts, aligned.rows.images, rng)
        return self._set_galleries(image, aligned.rows.given, aligned.rows.listed, text)

    # Embedding ----------------------------------------------------------------------------------------------------

    def transform(self, X: Any) -> np.ndarray:
        """Embed images.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        ndarray of shape (n_images, n_components of all members), float32
            Unit vectors.
        """
        check_is_fitted(self)
        refuse_unreadable(X)
        return self._join([embed_images(member, X) for member in self.estimators_])

    def transform_text(self, texts: Any) -> np.ndarray:
        """Embed texts.

        Parameters
        ----------
        texts : sequence of str, length n_texts

        Returns
        -------
        ndarray of shape (n_texts, n_components of all members), float32
            Unit vectors.
        """
        check_is_fitted(self)
        listed = check_texts(texts)
        return self._join([embed_texts(member, listed) for member in self.estimators_])

    def unknown_words(self, texts: Any) -> list[str]:
        """Return the words of texts that no member has seen in training.

        Parameters
        ----------
        texts : sequence of str

        Returns
        -------
        list of str
            Each once; empty where a member cannot tell.
        """
        check_is_fitted(self)
        rankers = [unwrap_ranker(member) for member in self.estimators_]
        if not all(hasattr(ranker, "unknown_words") for ranker in rankers):
            return []
        unknown = [ranker.unknown_words(texts) for ranker in rankers]
        return [word for word in unknown[0] if all(word in own for own in unknown[1:])]

    def _embed_readable(self, images: Any) -> tuple[np.ndarray, np.ndarray | None]:
        parts = [embed_readable(member, images) for member in self.estimators_]
        common = common_rows([rows for _, rows in parts])
        kept = [
            embedding if common is None else embedding[common if rows is None else np.searchsorted(rows, common)]
            for embedding, rows in parts
        ]
        return self._join(kept), common

    def _join(self, embeddings: list[np.ndarray]) -> np.ndarray:
        return join_spaces(embeddings, self.weights_ / self.spreads_)

    def _replace_estimator(self, attr: str, name: str, new_val: Any) -> None:
        # A member set to itself leaves the list as it is: what is set is what is stored.
        if not any(known == name and member is new_val for known, member in self.estimators):
            super()._replace_estimator(attr, name, new_val)

    # What scikit-learn asks ---------------------------------------------------------------------------------------

    @property
    def named_estimators_(self) -> Bunch:
        """The fitted members by name."""
        check_is_fitted(self)
        return Bunch(**dict(zip(self._names, self.estimators_, strict=True)))

    @property
    def n_features_in_(self) -> int:
        """Width of X, as the first member has it."""
        return int(self._first_member("n_features_in_").n_features_in_)

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns of X, as the first member has them."""
        return np.asarray(self._first_member("feature_names_in_").feature_names_in_)

    def _first_member(self, attribute: str) -> Any:
        if not self.__sklearn_is_fitted__():
            raise AttributeError(f"{type(self).__name__} has no {attribute} before fit")
        return self.estimators_[0]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimators_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        # float32 comes out, whatever goes in
        tags.transformer_tags.preserves_dtype = []
        of_members = [get_tags(member).input_tags for _, member in self._listed_members()]
        tags.input_tags.sparse = all(own.sparse for own in of_members)
        tags.input_tags.two_d_array = all(own.two_d_array for own in of_members)
        return tags


def _is_dropped(member: Any) -> bool:
    return isinstance(member, str) and member == "drop"
