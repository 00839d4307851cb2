"""Images and sentences in one space by canonical correlation: nothing is trained, the space is solved for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion
from sklearn.utils import check_random_state
from torch import Tensor

from sklearn_mm._device import forked_rng, generator_from, precision_of, resolve_device, resolve_dtype, torch_threads
from sklearn_mm._docs import shared_docs
from sklearn_mm._params import (
    DEVICE_CONSTRAINTS,
    HasMethods,
    Interval,
    StrOptions,
    positive_int,
    positive_real,
    validate_params,
)
from sklearn_mm.metrics import retrieval_report
from sklearn_mm.nn.towers import AffineMap
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.registry import stored_as
from sklearn_mm.retrieval._calibration import CALIBRATION_CONSTRAINTS, hold_out
from sklearn_mm.retrieval._canonical import CanonicalProblem, PairMoments
from sklearn_mm.retrieval._coordinates import Coordinates, Drawn, fit_coordinates
from sklearn_mm.retrieval._data import CaptionedImages
from sklearn_mm.retrieval._hubness import NearestNeighborNormalization
from sklearn_mm.retrieval._pair_rows import PairRows, image_rows, text_rows
from sklearn_mm.retrieval._search import SEARCH_CONSTRAINTS
from sklearn_mm.retrieval._towers import TwoTowersMixin
from sklearn_mm.sampling import held_out_rows
from sklearn_mm.texts import build_tokenizer
from sklearn_mm.towers import Tower, fit_encoder, is_trainable

__all__ = ["CorrelationRanker", "WordTfidf"]

# A share of the texts, so that small collections keep every word; as in JointEmbeddingRanker.
_MIN_DF = 5e-5
# Half powers of ten: between two of them RSum on Flickr8k differs by about 3.
_STEPS_A_DECADE = 2
_START = (0, -1)  # 1 for images, 0.32 for texts: the best there on 5,000 images
_LIMITS = (-6, 8)  # below, float32 has no root of a covariance
_MAX_TRIALS = 9
_TRIAL_COMPONENTS = 256
_FEW_IMAGES = 1000  # of fewer some are held out five times, as one choice would be a matter of chance
_HELD_OUT_SHARE, _MOST_HELD_OUT = 0.2, 1000
_TRIAL_BANK = 1000  # images that hubs are told by, in a trial
_FLOAT32_NOISE = 4 * float(np.finfo(np.float32).eps)
_OF_PARTIAL_FIT = ("_moments", "_image_coordinates", "_text_coordinates")  # on which no answer depends


@stored_as("retrieval.WordTfidf")
class WordTfidf(TfidfVectorizer):
    """Tf-idf of the words of any script, as the text encoders of this library split them."""

    def build_analyzer(self) -> Callable[[str], list[str]]:
        """Return the function from a text to its words."""
        return build_tokenizer(self.lowercase, None, "word", self.ngram_range, unicode_form="NFC")


@shared_docs
@stored_as("retrieval.CorrelationRanker")
class CorrelationRanker(TwoTowersMixin, PickleStateMixin, BaseEstimator):
    r"""Solve for one space of images and texts by canonical correlation.

    Regularised, in closed form: it takes seconds where `JointEmbeddingRanker` trains for minutes, and no epochs, rates
    or batches.

    Parameters
    ----------
    text_encoder : transformer, default=None
        Any transformer from texts to features, fitted on the captions and then frozen: a `TfidfVectorizer`, a
        `FunctionTransformer` around a sentence encoder pretrained elsewhere. Of a `FeatureUnion` each transformer's
        columns are brought to the same total variance, multiplied by its `transformer_weights`. None takes tf-idf of
        words, without those that fewer than one text in 20,000 has.
    image_encoder : transformer, default=None
        Any transformer from whatever X holds to features, fitted and then frozen. None takes X as features.
    n_components : int, default=512
        Width of the joint space at most; less, where there are fewer features.
    regularization : "auto", float, or (float, float), default="auto"
        What is added to the variance of each direction, as a share of the mean variance: of images and texts alike, or
        of each. "auto" chooses both by the RSum of images held out, and whether ``hubness="auto"`` corrects for hubs.
    power : float, default=1.5
        Each component is multiplied by its correlation to this power.
    captions : {"each", "mean"}, default="each"
        Whether the variance of texts is that of single captions or of the means of each image's.
    n_reduced : int or (int, int), default=(2500, 2000)
        Of wider images or texts (each transformer of a `FeatureUnion` apart) so many dimensions are kept before:
        principal components of sparse columns, and of dense ones the span of so many images drawn at random.
    store_covariance : bool, default=True
        Whether `fit` keeps what `partial_fit` goes on from; mostly it is larger than all else, see Notes.
    random_state : int, RandomState or None, default=None
        Of what is held out, of the dimensions kept, and of what is random in encoders without a `random_state` of their
        own.
    device : str or torch.device, default="auto"
    precision : {"auto", "float32", "bfloat16", "float16"}, default="float32"
        In which dense features are multiplied when they are embedded. `fit` computes in float32 what is as wide as X,
        and in float64 what is not. "auto" is bfloat16 where the hardware computes in it.
    n_jobs : int, default=None
        Threads on the CPU that torch computes with; None takes as many as torch is set to, -1 one for each core.
    %(search_parameters)s
    %(calibration)s

    Attributes
    ----------
    image_encoder_, text_encoder_ : estimator or None
        The fitted encoders.
    correlations_ : ndarray of shape (n_components,), float64
        Of the components, falling.
    regularization_ : (float, float)
        Of images and texts.
    gallery_texts_ : ndarray of shape (n_gallery_texts,), object or y's dtype
        The texts that `search_texts` and `predict` choose from: after `fit` the different captions, sorted.
    %(hubness_)s
    n_features_in_ : int
        Width of X, where it is a matrix of features.
    %(fitted_precision)s

    See Also
    --------
    JointEmbeddingRanker : Trains both towers.
    sklearn_mm.features.FullNetworkEmbedding : The features to put before it in a `Pipeline`.
    sklearn_mm.metrics.RetrievalScorer : Recall@K for `GridSearchCV`.

    Notes
    -----
    With covariances :math:`C_{xx}` of images, :math:`C_{tt}` of texts and :math:`C_{xt}` of both, each side is whitened
    by :math:`C + r \bar\lambda I`, where :math:`\bar\lambda` is the mean of its eigenvalues; the singular vectors of
    the whitened :math:`C_{xt}` are the components, and vectors are compared by their cosine [1]_, [2]_. Dense columns
    of images are standardised first.

    Rows, captions, equal rows and groups are taken as in `JointEmbeddingRanker`; a row of weight 2 and a row given
    twice lead to the same model. Groups are held out together by ``regularization="auto"``, and have no other effect.

    An encoder that trains is refused: fit it before, and pass ``FrozenEstimator(encoder)`` of `sklearn.frozen`.

    `fit` keeps covariances for `partial_fit`, unless ``store_covariance=False``: with p image and q text dimensions
    (the columns, or `n_reduced`) ``8 * (p**2 + p * q + 2 * q**2)`` bytes, and for reduced columns ``4 * n_columns *
    n_reduced`` of their basis. While it runs it holds about four times that, a few blocks of 32 MB and up to 256 MB of
    reduced images, whatever the number of images; no matrix is as large as the square of reduced columns. After `fit`
    both galleries hold the training data, 4 bytes a component and item.

    %(threads)s

    References
    ----------
    .. [1] Hardoon, Szedmak, Shawe-Taylor, "Canonical Correlation Analysis: An Overview with Application to Learning
       Methods", Neural Computation 16(12), 2004.
    .. [2] Gong, Ke, Isard, Lazebnik, "A Multi-View Embedding Space for Modeling Internet Images, Tags, and their
       Semantics", IJCV 106, 2014, https://arxiv.org/abs/1212.4522 (components weighted by their correlations)

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.retrieval import CorrelationRanker
    >>> captions = [f"a {colour} {shape}" for colour in ("red", "green", "blue") for shape in ("dot", "box")] * 8
    >>> features = np.tile(np.eye(6), (8, 1)) + np.random.default_rng(0).normal(0, 0.1, (48, 6))
    >>> ranker = CorrelationRanker(random_state=0).fit(features, captions)
    >>> ranker.predict(features[:3])
    array(['a red dot', 'a red box', 'a green dot'], dtype=object)
    >>> scores, indices = ranker.search_images(["a green dot"], k=3)
    >>> {captions[i].split()[1] for i in indices[0]}
    {'green'}
    """

    _parameter_constraints: dict[str, Any] = {
        **DEVICE_CONSTRAINTS,
        **SEARCH_CONSTRAINTS,
        **CALIBRATION_CONSTRAINTS,
        "text_encoder": [HasMethods(["fit", "transform"]), None],
        "image_encoder": [HasMethods(["fit", "transform"]), None],
        "n_components": [positive_int],
        "regularization": [StrOptions({"auto"}), positive_real, "array-like"],
        "power": [Interval(Real, 0, None, closed="left")],
        "captions": [StrOptions({"each", "mean"})],
        "n_reduced": [positive_int, "array-like"],
        "store_covariance": ["boolean"],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    }

    similarity = "cosine"
    _leaves_hubs = False
    _moments: PairMoments
    _image_coordinates: Coordinates
    _text_coordinates: Coordinates

    def __init__(
        self,
        text_encoder: Any = None,
        image_encoder: Any = None,
        *,
        n_components: int = 512,
        regularization: str | float | Sequence[float] = "auto",
        power: float = 1.5,
        captions: str = "each",
        n_reduced: int | Sequence[int] = (2500, 2000),
        store_covariance: bool = True,
        random_state: Any = None,
        device: Any = "auto",
        precision: str = "float32",
        n_jobs: int | None = None,
        hubness: str | NearestNeighborNormalization | None = "auto",
        index: Any = None,
        calibration_fraction: float | None = None,
    ) -> None:
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.n_components = n_components
        self.regularization = regularization
        self.power = power
        self.captions = captions
        self.n_reduced = n_reduced
        self.store_covariance = store_covariance
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.hubness = hubness
        self.index = index
        self.calibration_fraction = calibration_fraction

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Solve for the joint space, and make the training data the galleries.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_images, n_features), or images for `image_encoder`
        y : sequence of (str or sequence of str), length n_images
            The captions of each image, as in `JointEmbeddingRanker`.
        sample_weight : array-like of shape (n_images,), optional
            How much each image counts; 0 leaves it out.
        groups : array-like of shape (n_images,), optional
            Images of one group are held out together.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Lengths differ, an image has no caption or no group, a caption is empty (the message names the row),
            features are not finite, or there are fewer than two images.
        TypeError
            y is a mapping, a set or a file, an entry is neither a str nor a sequence of str, or an encoder trains.
        """
        self._learn(X, y, sample_weight, groups, first=True, calibration_fraction=self.calibration_fraction)
        if not self.store_covariance:
            for name in _OF_PARTIAL_FIT:
                delattr(self, name)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Add the covariances of the given rows to those before, and solve anew. The rows become the galleries.

        Encoders and reduced dimensions are those of the first call (of `fit`, or of this): with them any parts of the
        data lead to what one `fit` on all leads to, up to rounding. Of columns that are not reduced nothing else is
        kept. ``regularization="auto"`` chooses anew by rows of each call held out. An image is to come with all of its
        captions in one call.

        What it adds to, the calls of `partial_fit` keep whatever `store_covariance` is.

        Parameters
        ----------
        X, y, sample_weight, groups
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As in `fit`; or `fit` has kept no covariances.
        """
        first = not self.__sklearn_is_fitted__()
        if not first and not hasattr(self, "_moments"):
            raise ValueError(
                "partial_fit adds to the covariances of fit, which has not kept them, as store_covariance was False; "
                "set_params(store_covariance=True) and fit again; to search among more pictures, add them to a "
                "Gallery"
            )
        return self._learn(X, y, sample_weight, groups, first=first)

    def _learn(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        groups: Any,
        *,
        first: bool,
        calibration_fraction: float | None = None,
    ) -> Self:
        self._check_parameters()
        given = self._check_training_data(X, y, sample_weight, groups, reset=first)
        X, captions, place, weight, groups = given.parts
        random_state = check_random_state(self.random_state)
        rng = generator_from(random_state)
        self.precision_ = precision_of(
            resolve_dtype(self.precision, resolve_device(self.device), None if first else self._fitted_precision())
        )
        weight, kept_out = hold_out(calibration_fraction, weight, groups, captions.n_images, rng)
        with torch_threads(self.n_jobs), forked_rng(random_state):
            rows, images, captions, place = self._encode_images(
                X, captions, place, weight, groups, random_state, not first
            )
            if first:
                self.text_encoder_, texts = fit_encoder(_text_encoder(self.text_encoder), images.texts, random_state)
            else:
                texts = self._text_tower().prepare(images.texts)
            # Those of `images` have mean 1; here calls of partial_fit are to count by what they hold.
            total = captions.n_images if weight is None else (weight if place is None else weight[place]).sum()
            own = images.weight.astype(np.float64)
            pairs = PairRows(rows, texts, images.rows, images.starts, own * (total / own.sum()))
            drawn = self._choose_coordinates(pairs, images.texts[0], rng) if first else None
            once = self._image_coordinates.once(rows, _algebra_device(self.device), drawn)
            pairs = replace(pairs, image=once)
            self._solve(pairs, images, rng, first)
        self._set_training_gallery(rows, captions, images, texts, given.rows_of(place), rng)
        return self._calibrate(captions, place, kept_out)

    def _check_parameters(self) -> None:
        validate_params(self)
        self._check_search_parameters()
        for name, kind in (("regularization", Real), ("n_reduced", Integral)):
            value = getattr(self, name)
            if not isinstance(value, str) and not _is_pair(value, kind):
                raise ValueError(f"{name} must be one positive number, or two: of images and of texts; got {value!r}")
        for name, encoder in (("image_encoder", self.image_encoder), *_named_parts(self.text_encoder)):
            if is_trainable(encoder):
                raise TypeError(
                    f"{name} is a {type(encoder).__name__}, which trains, and here nothing is trained; fit it before "
                    "and pass sklearn.frozen.FrozenEstimator(encoder), or train it in a JointEmbeddingRanker"
                )

    def _choose_coordinates(self, pairs: PairRows, text: str, rng: np.random.Generator) -> Drawn | None:
        """Choose the coordinates of both sides; return rows of images whose coordinates are known by that."""
        device = _algebra_device(self.device)
        reduced = _pair(self.n_reduced)
        starts, self._text_weights = _blocks_of(self.text_encoder_, text, pairs.text.shape[1])
        # One scale for all sparse columns, whose rare ones would be blown up; it has no effect.
        self._standardised = not sparse.issparse(pairs.image)
        self._image_coordinates, drawn = fit_coordinates(
            image_rows(pairs),
            [0, pairs.image.shape[1]],
            int(reduced[0]),
            standardise=self._standardised,
            rng=rng,
            device=device,
        )
        self._text_coordinates, _ = fit_coordinates(
            text_rows(pairs), starts, int(reduced[1]), standardise=False, rng=rng, device=device
        )
        # drawn among images, each of which has a row
        return None if drawn is None else drawn._replace(rows=pairs.rows[drawn.rows])

    def _moments_of(self, pairs: PairRows) -> PairMoments:
        return PairMoments.of(
            pairs,
            self._image_coordinates,
            self._text_coordinates,
            each=self.captions == "each",
            device=_algebra_device(self.device),
        )

    def _problem(self, moments: PairMoments, dtype: torch.dtype = torch.float64) -> CanonicalProblem:
        image, text = self._image_coordinates, self._text_coordinates
        whole = image.bases[0] is None
        noise = np.zeros(len(moments.image_sum))
        if whole:
            noise = _FLOAT32_NOISE * np.abs(image.shift + moments.image_sum / moments.weight)
        return CanonicalProblem.of(
            moments,
            standardise=np.full(len(noise), whole and self._standardised),
            text_blocks=text.block_of,
            text_weights=self._text_weights,
            image_noise=noise,
            device=_algebra_device(self.device),
            dtype=dtype,
        )

    def _solve(self, pairs: PairRows, images: CaptionedImages, rng: np.random.Generator, first: bool) -> None:
        moments = self._moments_of(pairs)
        self._moments = moments if first else self._moments.plus(moments)
        self.regularization_ = self._choose_regularization(pairs, images, rng)
        problem = self._problem(self._moments)
        image, text, correlations = problem.solve(self.regularization_, self.n_components, self.power)
        self.correlations_ = correlations.cpu().numpy()
        self._n_features_out = len(self.correlations_)
        self.image_head_ = _affine(self._image_coordinates, image, problem.image_scale, problem.image_mean)
        self.text_head_ = _affine(self._text_coordinates, text, problem.text_scale, problem.text_mean)

    def _choose_regularization(
        self, pairs: PairRows, images: CaptionedImages, rng: np.random.Generator
    ) -> tuple[float, float]:
        self._leaves_hubs = False  # until images held out have told
        if not isinstance(self.regularization, str):
            return _pair(self.regularization)
        trials = [self._trial(pairs, images, np.flatnonzero(part), rng) for part in _parts_held_out(images.group, rng)]
        if not trials:
            return _ridge_of(_START)

        def rsum(ridge: tuple[float, float], corrects: bool = True) -> float:
            return float(np.mean([trial(ridge, corrects) for trial in trials]))

        steps, reached = _climb(lambda step: rsum(_ridge_of(step)))
        ridge = _ridge_of(steps)
        self._leaves_hubs = rsum(ridge, corrects=False) > reached
        return ridge

    def _hub_correction(self) -> NearestNeighborNormalization | None:
        # What images held out were worse by is left out, unless it was asked for by its name.
        return None if self._leaves_hubs and self.hubness == "auto" else super()._hub_correction()

    def _trial(
        self, pairs: PairRows, images: CaptionedImages, held_out: np.ndarray, rng: np.random.Generator
    ) -> Callable[[tuple[float, float], bool], float]:
        """Return the function to the RSum of images held out: from a regularisation, and whether hubs are corrected."""
        device = _algebra_device(self.device)
        own, scored = pairs.take(held_out), images.take(held_out)
        # What the others sum to is what all do without these: no row is read again but those held out.
        problem = self._problem(self._moments.plus(self._moments_of(own), sign=-1.0), torch.float32)
        correction = self._hub_correction()
        if correction is not None:
            correction.set_params(random_state=0)  # nothing is drawn of so few, but the process's numbers would move on
        others = rng.permutation(np.setdiff1d(np.arange(len(images)), held_out))
        n_bank = _TRIAL_BANK if correction is None else min(_TRIAL_BANK, correction.bank_size)
        bank = pairs.take(np.sort(others[:n_bank]))

        def centred(part: PairRows, texts: Any) -> tuple[Tensor, Tensor]:
            image = self._image_coordinates.of(part.image[part.rows], device)
            text = self._text_coordinates.of(texts, device)
            return (
                _scaled(image, problem.image_mean, problem.image_scale),
                _scaled(text, problem.text_mean, problem.text_scale),
            )

        asked, known = centred(own, own.text), centred(bank, bank.text[bank.starts[:-1]])  # of the bank one text each

        def rsum(ridge: tuple[float, float], corrects: bool) -> float:
            maps = problem.solve(ridge, min(self.n_components, _TRIAL_COMPONENTS), self.power)[:2]
            image, text = (_numpy(part @ own_map) for part, own_map in zip(asked, maps, strict=True))
            image_offset = text_offset = None
            if correction is not None and corrects:
                correction.fit(*(_numpy(part @ own_map) for part, own_map in zip(known, maps, strict=True)))
                image_offset, text_offset = correction.image_offsets(image), correction.text_offsets(text)
            report = retrieval_report(
                image,
                text,
                scored.owner,
                wording=scored.wording,
                image_offset=image_offset,
                text_offset=text_offset,
            )
            return float(report["rsum"])

        return rsum

    def _tower(self, encoder: Any, head: torch.nn.Module) -> Tower:
        device = resolve_device(self.device)
        return _SparseTower(encoder, head, device, resolve_dtype(self.precision, device, self._fitted_precision()))

    @classmethod
    def _from_format(cls, state: dict[str, Any], number: int) -> dict[str, Any]:
        """Bring an older state to today's: all of before kept their covariances."""
        return {"store_covariance": True, **super()._from_format(state, number)}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = []  # float32 comes out, whatever goes in
        return tags


class _SparseTower(Tower):
    """A tower whose sparse rows stay sparse: of 100,000 columns a dense batch would take longer than all else."""

    def collate(self, rows: Any, rng: np.random.Generator | None = None) -> Any:
        if not sparse.issparse(rows) or self.device.type == "mps":  # which has no sparse products
            return super().collate(rows, rng)
        rows = rows.tocsr(copy=True)
        rows.sum_duplicates()  # sorts
        rows = rows.tocoo()
        places = torch.from_numpy(np.stack([rows.row, rows.col]).astype(np.int64))
        values = torch.from_numpy(rows.data.astype(np.float32))
        return torch.sparse_coo_tensor(places, values, rows.shape, is_coalesced=True, check_invariants=False)


def _pair(value: Any) -> tuple[float, float]:
    image, text = np.broadcast_to(value, 2).tolist()
    return image, text


def _is_pair(value: Any, kind: type) -> bool:
    """Tell one positive number, or two."""
    listed: list[Any] = [value, value] if isinstance(value, Real) else list(value)
    return len(listed) == 2 and all(isinstance(part, kind) for part in listed) and min(listed) > 0


def _text_encoder(encoder: Any) -> Any:
    return WordTfidf(min_df=_MIN_DF, dtype=np.float32) if encoder is None else encoder


def _named_parts(encoder: Any) -> list[tuple[str, Any]]:
    """Return a text encoder, or each transformer of a union, with what to call it in a message."""
    if not isinstance(encoder, FeatureUnion):
        return [("text_encoder", encoder)]
    return [(f"text_encoder__{name}", part) for name, part in encoder.transformer_list]


def _blocks_of(encoder: Any, text: str, n_columns: int) -> tuple[list[int], list[float]]:
    """Return where each block of columns starts and the last one ends, and what each block is to be multiplied by."""
    if not isinstance(encoder, FeatureUnion):
        return [0, n_columns], [1.0]
    used = [(name, part) for name, part in encoder.transformer_list if not isinstance(part, str)]  # "drop"
    widths = [part.transform([text]).shape[1] for _, part in used]
    if sum(widths) != n_columns:  # "passthrough", or another number of columns for each text
        return [0, n_columns], [1.0]
    weights = encoder.transformer_weights or {}
    return [0, *np.cumsum(widths).tolist()], [float(weights.get(name, 1.0)) for name, _ in used]


def _algebra_device(device: Any) -> torch.device:
    resolved = resolve_device(device)
    return torch.device("cpu") if resolved.type == "mps" else resolved  # which has no float64


def _affine(coordinates: Coordinates, maps: Tensor, scale: np.ndarray, mean: np.ndarray) -> AffineMap:
    """Return a map of scaled, centred coordinates as one of features."""
    scaled = maps.cpu().numpy() * scale[:, None]
    head = AffineMap(len(coordinates.shift), scaled.shape[1])
    head.set_map(
        torch.from_numpy(coordinates.shift),
        torch.from_numpy(coordinates.columns_of(scaled)),
        torch.from_numpy(-mean @ scaled),
    )
    return head.eval()


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.float().cpu().numpy()
    return array


def _scaled(coordinates: Tensor, mean: np.ndarray, scale: np.ndarray) -> Tensor:
    """Return scaled, centred coordinates, float32."""
    device = coordinates.device
    return ((coordinates.double() - torch.from_numpy(mean).to(device)) * torch.from_numpy(scale).to(device)).float()


def _parts_held_out(group: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return which images are held out in each trial: once of many images, five times of few."""
    if len(group) >= _FEW_IMAGES:
        part = held_out_rows(group, min(_HELD_OUT_SHARE, _MOST_HELD_OUT / len(group)), rng)
        return [] if part is None else [part]
    parts: list[np.ndarray] = []
    for _ in range(5):
        part = held_out_rows(group, _HELD_OUT_SHARE, rng)
        parts += [] if part is None else [part]
    return parts


def _ridge_of(steps: tuple[int, int]) -> tuple[float, float]:
    image, text = (float(10 ** (step / _STEPS_A_DECADE)) for step in steps)
    return image, text


def _climb(score: Callable[[tuple[int, int]], float]) -> tuple[tuple[int, int], float]:
    """Return the best pair of steps that single steps lead to, from the usual one on, and its score."""
    known: dict[tuple[int, int], float] = {}

    def value(steps: tuple[int, int]) -> float:
        if steps not in known:
            known[steps] = score(steps)
        return known[steps]

    best, moved = _START, True
    value(best)
    while moved and len(known) < _MAX_TRIALS:
        moved = False
        # Texts first: the images' covariance, the larger one, is then factored once.
        for side, direction in ((1, 1), (1, -1), (0, 1), (0, -1)):
            while len(known) < _MAX_TRIALS:
                step = (best[0] + direction * (side == 0), best[1] + direction * (side == 1))
                if not _LIMITS[0] <= step[side] <= _LIMITS[1] or value(step) <= value(best):
                    break
                best, moved = step, True
    return best, known[best]
