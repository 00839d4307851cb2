"""From a table of pictures and tags to labels, in one pipeline."""

from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from sklearn_mm._checks import did_you_mean
from sklearn_mm.annotation._annotator import MultiLabelAnnotator
from sklearn_mm.annotation._picture_columns import PictureColumns
from sklearn_mm.features import FullNetworkEmbedding, TagVectorizer
from sklearn_mm.nn.backbones import backbone_at_hand
from sklearn_mm.towers import is_trainable

__all__ = ["make_annotation_pipeline"]


# As those of `make_search_pipeline`: what is read of which network.
_SETTINGS: dict[str, dict[str, Any]] = {
    "fast": {"backbone": "efficientnet_lite0", "layers": "last", "crops": "center"},
    "balanced": {"backbone": "efficientnet_lite2", "layers": 9, "crops": "center"},
    "best": {"backbone": "efficientnet_lite2", "layers": 9, "crops": "mirrored"},
}


def make_annotation_pipeline(
    annotator: Any = None,
    *,
    image_encoder: Any = None,
    tag_encoder: Any = None,
    image: str = "image",
    tags: str | None = "tags",
    memory: Any = None,
) -> Pipeline:
    """Make the pipeline from a DataFrame with pictures and tags to their labels.

    Parameters
    ----------
    annotator : {"fast", "balanced", "best"} or MultiLabelAnnotator, default=None
        A word for settings that go together, see Notes; or the annotator behind, which is cloned, and told which
        columns are tags. None takes one as it comes.
    image_encoder : transformer, default=None
        For the pictures. One that can be trained becomes the annotator's own. None takes a `FullNetworkEmbedding`:
        that of the word, or one as it comes.
    tag_encoder : transformer, default=None
        For the tags; it gives a dense matrix. None takes a `TagVectorizer`.
    image : str, default="image"
        Name of the column of pictures: paths, PIL images or whatever the encoder reads.
    tags : str, default="tags"
        Name of the column of tags: lists of str. None for pictures alone, which then need no frame.
    memory : str or object with the joblib.Memory interface, default=None
        As in `Pipeline`.

    Returns
    -------
    Pipeline
        Of two steps, "columns" and "annotator".

    Raises
    ------
    ValueError
        There is no such word.

    Warns
    -----
    UserWarning
        The weights that the word names are not installed, and others will be downloaded.

    See Also
    --------
    sklearn_mm.retrieval.make_search_pipeline : The same for sentences.

    Notes
    -----
    "fast" is the last layer of EfficientNet-Lite0 and the network of the annotator alone; "balanced" the last nine
    convolutions of EfficientNet-Lite2, with the members that an annotator has by default; "best" that with mirror
    images; each with mean and maximum, not discretised. Their weights come with ``sklearn-mm[weights]``, and nothing is
    downloaded.

    Measured on 1,200 photographs of Flickr8k's training part, with nouns of their captions as labels and other words as
    tags; overall F1 and mean average precision over the 1,000 of the validation part, seed 0; seconds of one core, the
    features of all 2,200 (``examples/flickr8k_settings.py``):

    ========== ========== ============ =========== ============
    setting    pictures   with tags    features, s annotator, s
    ========== ========== ============ =========== ============
    "fast"     .467, .310 .475, .317   35          27
    "balanced" .487, .334 .489, .341   58          97
    "best"     .490, .342 not measured 97          96
    ========== ========== ============ =========== ============

    A frame goes from step to step, so that the annotator knows the tags by the prefix of their names however many
    there are: any parameter may be searched. It needs pandas.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_mm.annotation import make_annotation_pipeline
    >>> from sklearn_mm.datasets import make_captioned_shapes
    >>> from sklearn_mm.features import FullNetworkEmbedding
    >>> shapes = make_captioned_shapes(40, image_size=32, random_state=0)
    >>> frame = pd.DataFrame({"image": list(shapes.images), "tags": [own[0].split()[:2] for own in shapes.captions]})
    >>> embedding = FullNetworkEmbedding("squeezenet1_1", weights=None, image_size=32, layers=2)
    >>> pipeline = make_annotation_pipeline(image_encoder=embedding).fit(frame, shapes.target)
    >>> pipeline.predict(frame).shape == shapes.target.shape
    True
    """
    if isinstance(annotator, str):
        annotator, embedding = _in_a_word(annotator, has_encoder=image_encoder is not None)
        image_encoder = embedding if image_encoder is None else clone(image_encoder)
    else:
        annotator = MultiLabelAnnotator() if annotator is None else clone(annotator)
        image_encoder = FullNetworkEmbedding() if image_encoder is None else clone(image_encoder)
    columns: list[tuple[str, Any, Any]] = [("image", image_encoder, image)]
    if is_trainable(image_encoder):
        columns = [("image", "passthrough", [image])]
        annotator.set_params(image_encoder=image_encoder)
    if tags is not None:
        columns.append(
            ("tags", TagVectorizer(sparse_output=False) if tag_encoder is None else clone(tag_encoder), tags)
        )
        annotator.set_params(tag_features="tags__.*")
    frame = PictureColumns(columns).set_output(transform="pandas")
    return Pipeline([("columns", frame), ("annotator", annotator)], memory=memory)


def _in_a_word(setting: str, *, has_encoder: bool) -> tuple[MultiLabelAnnotator, FullNetworkEmbedding | None]:
    """Return the annotator and the embedding of a setting."""
    if setting not in _SETTINGS:
        raise ValueError(f"unknown setting {setting!r}; {did_you_mean(setting, _SETTINGS)}")
    annotator = MultiLabelAnnotator(members=None) if setting == "fast" else MultiLabelAnnotator()
    if has_encoder:
        return annotator, None
    chosen = dict(_SETTINGS[setting])
    backbone = backbone_at_hand(chosen.pop("backbone"), stacklevel=3)
    return annotator, FullNetworkEmbedding(backbone, pooling="mean+max", discretize=False, **chosen)
