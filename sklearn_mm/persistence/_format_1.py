"""What format 1 called the classes: by the files they were in, in folders as in pickles."""

import sys
from collections.abc import Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from sklearn_mm.registry import find

__all__ = ["FORMAT_1_NAMES", "find_old_modules", "name_since_format_1"]

FORMAT_1_NAMES = {
    "sklearn_mm.annotation._annotator.MultiLabelAnnotator": "annotation.MultiLabelAnnotator",
    "sklearn_mm.annotation._count_predictor.LabelCountPredictor": "annotation.LabelCountPredictor",
    "sklearn_mm.annotation._decisions.F1Rule": "annotation.F1Rule",
    "sklearn_mm.annotation._labels.LabelForm": "annotation.LabelForm",
    "sklearn_mm.annotation._scores.Calibration": "annotation.Calibration",
    "sklearn_mm.annotation._steps.CountTarget": "annotation.CountTarget",
    "sklearn_mm.annotation._tuning.Decisions": "annotation.Decisions",
    "sklearn_mm.features._full_network.FullNetworkEmbedding": "features.FullNetworkEmbedding",
    "sklearn_mm.features._image_cnn.ImageCNNEncoder": "features.ImageCNNEncoder",
    "sklearn_mm.features._moments.RunningMoments": "towers.RunningMoments",
    "sklearn_mm.features._multi_scale.MultiScaleCNNEncoder": "features.MultiScaleCNNEncoder",
    "sklearn_mm.features._tags.TagVectorizer": "features.TagVectorizer",
    "sklearn_mm.features._text_cnn.TextCNNEncoder": "features.TextCNNEncoder",
    "sklearn_mm.features._text_gru.TextGRUEncoder": "features.TextGRUEncoder",
    "sklearn_mm.features._text_ngram.TextNGramEncoder": "features.TextNGramEncoder",
    "sklearn_mm.features._text_sequence.TextSequenceEncoder": "features.TextSequenceEncoder",
    "sklearn_mm.images._rows.ReadFailure": "images.ReadFailure",
    "sklearn_mm.index._exact.ExactIndex": "index.ExactIndex",
    "sklearn_mm.index._faiss.FaissIndex": "index.FaissIndex",
    "sklearn_mm.metrics._annotation_scorer.AnnotationScorer": "metrics.AnnotationScorer",
    "sklearn_mm.metrics._ranks.PositiveRanks": "metrics.PositiveRanks",
    "sklearn_mm.metrics._ranks.RetrievalRanks": "metrics.RetrievalRanks",
    "sklearn_mm.metrics._scorer.RetrievalScorer": "metrics.RetrievalScorer",
    "sklearn_mm.model_selection._leaks.CaptionLeak": "model_selection.CaptionLeak",
    "sklearn_mm.model_selection._leaks.ImageLeak": "model_selection.ImageLeak",
    "sklearn_mm.model_selection._leaks.LeakReport": "model_selection.LeakReport",
    "sklearn_mm.nn.annotation.AnnotationNetwork": "nn.AnnotationNetwork",
    "sklearn_mm.nn.annotation.CountNetwork": "nn.CountNetwork",
    "sklearn_mm.nn.annotation.FeatureBranch": "nn.FeatureBranch",
    "sklearn_mm.nn.annotation.TagBranch": "nn.TagBranch",
    "sklearn_mm.nn.image_cnn.ImageCNN": "nn.ImageCNN",
    "sklearn_mm.nn.lite.EfficientNetLite": "nn.EfficientNetLite",
    "sklearn_mm.nn.lite.InvertedBottleneck": "nn.InvertedBottleneck",
    "sklearn_mm.nn.lite.SameConv2d": "nn.SameConv2d",
    "sklearn_mm.nn.multi_scale.FusionBlock": "nn.FusionBlock",
    "sklearn_mm.nn.multi_scale.MultiScaleCNN": "nn.MultiScaleCNN",
    "sklearn_mm.nn.packed.WordLinear": "nn.WordLinear",
    "sklearn_mm.nn.stages.Stage": "nn.Scale",
    "sklearn_mm.nn.text_cnn.TextCNN": "nn.TextCNN",
    "sklearn_mm.nn.text_cnn._Block": "nn.TextCNNBlock",
    "sklearn_mm.nn.text_ngram.TextNGram": "nn.TextNGram",
    "sklearn_mm.nn.text_rnn.TextGRU": "nn.TextGRU",
    "sklearn_mm.nn.text_sequence.TextSequence": "nn.TextSequence",
    "sklearn_mm.nn.towers.FeatureTower": "nn.FeatureTower",
    "sklearn_mm.retrieval._gallery.Gallery": "retrieval.Gallery",
    "sklearn_mm.retrieval._ranker.JointEmbeddingRanker": "retrieval.JointEmbeddingRanker",
    "sklearn_mm.texts._token_rows.TokenRows": "texts.TokenRows",
}
"""From each class that a file of format 1 may name, as it was called then, to the name it is stored under now."""

_GONE = (
    "of an older sklearn_mm, and gone: fit the estimator again, or open the pickle with the sklearn_mm that wrote it "
    "and save it with sklearn_mm.persistence.save"
)


def name_since_format_1(name: str) -> str:
    """Return what a folder of format 1 would call a class now; most estimators are called as ever."""
    return f"sklearn_mm.{FORMAT_1_NAMES[name]}" if name in FORMAT_1_NAMES else name


class _OldModules(MetaPathFinder, Loader):
    """Puts an empty module in the place of a file that pickles of format 1 name and that is there no more.

    Its attributes are today's classes. It is asked last, so that it answers for missing files alone.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        is_old = name.startswith("sklearn_mm.") and any(old.rpartition(".")[0] == name for old in FORMAT_1_NAMES)
        # pickle replaces the text of an AttributeError by its own, which shows the module: so the origin says it too
        return ModuleSpec(name, self, origin=_GONE) if is_old else None

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__getattr__"] = partial(_today, module.__name__)


def _today(module: str, name: str) -> type[Any]:
    old = f"{module}.{name}"
    try:
        return find(FORMAT_1_NAMES[old])
    except (KeyError, ValueError) as error:
        raise AttributeError(f"{old} is {_GONE}") from error


def find_old_modules() -> None:
    """Let pickles of format 1 find their classes, from now on in this process."""
    sys.meta_path.append(_OldModules())
