"""What every public estimator gives at a fixed seed, told in a few numbers.

`CASES` maps a name to a function of a folder, to which a run may write. Each table below holds the constructor calls of
one estimator, so that a renamed parameter is a matter of one line here, and of none in expected.json.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.pipeline import make_union
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

try:
    from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator, make_annotation_pipeline
except ImportError:
    from unittest.mock import Mock

    LabelCountPredictor = MultiLabelAnnotator = make_annotation_pipeline = Mock()
from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import (
    FullNetworkEmbedding,
    ImageCNNEncoder,
    MultiScaleCNNEncoder,
    TagVectorizer,
    TextCNNEncoder,
    TextGRUEncoder,
    TextNGramEncoder,
    TextSequenceEncoder,
)
from sklearn_mm.losses import AsymmetricLoss, InfoNCELoss, InstanceLoss, RankingLoss
from sklearn_mm.retrieval import (
    CorrelationRanker,
    JointEmbeddingRanker,
    NearestNeighborNormalization,
    RankerEnsemble,
    recipes,
)

N_SCENES, N_PICTURES, N_FEATURES = 60, 24, 16
HERE = {"random_state": 0, "device": "cpu", "precision": "float32"}
READING = {"image_size": 32, "batch_size": 8, "device": "cpu", "precision": "float32"}


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, whose sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


# Data -----------------------------------------------------------------------------------------------------------


@cache
def scenes():
    return make_captioned_shapes(N_SCENES, image_size=32, random_state=0)


@cache
def features():
    """Noisy projections of what is to be seen, (N_SCENES, N_FEATURES) float32, alike to the bit on every machine."""
    rng = np.random.default_rng(0)
    directions = np.round(rng.normal(size=(scenes().target.shape[1], N_FEATURES)), 3)
    noise = np.round(rng.normal(0, 0.3, (N_SCENES, N_FEATURES)), 3)
    return np.round(scenes().target @ directions + noise, 3).astype(np.float32)


def captions():
    return scenes().captions


def all_captions():
    return [text for own in captions() for text in own]


def instances():
    """The picture of each caption."""
    return np.arange(2 * N_SCENES) // 2


def first_captions():
    return [own[0] for own in captions()]


def pictures():
    return scenes().images[:N_PICTURES]


def weights():
    """0 for some."""
    return np.arange(N_SCENES) % 4 / 2


def groups():
    return np.arange(N_SCENES) // 2


def indicator():
    """The labels, with two rows of none."""
    labels = scenes().target.astype(np.float64)
    labels[[3, 30]] = 0
    return labels


def labeled():
    """0 for the rows without labels."""
    return (indicator().sum(axis=1) > 0).astype(np.float64)


def partly_known():
    labels = indicator()
    labels[np.random.default_rng(1).random(labels.shape) < 0.1] = np.nan
    return labels


@cache
def tag_columns():
    """Words of the captions as 0 and 1, (N_SCENES, n_tags) float32."""
    words = ["red", "green", "blue", "circle", "square", "star", "left", "right"]
    return np.array([[word in text for word in words] for text in first_captions()], np.float32)


def features_and_tags():
    return np.concatenate([features(), tag_columns()], axis=1)


def one_label():
    return np.array([own[0] for own in scenes().tags])


# What is told of an estimator -----------------------------------------------------------------------------------


def told_of_table(name, table):
    """A corner of a matrix, and its mean row."""
    table = np.asarray(table.toarray() if sparse.issparse(table) else table)
    return {name: table[:3, :6], f"{name}, mean": table.mean(axis=0, dtype=np.float64)[:6].astype(np.float32)}


def told_of_history(estimator):
    """What each epoch tells but how long it took; NaN where only other stages have a score."""
    records = estimator.history_
    names = [name for name in records[0] if name in ("stage", "train_loss", "learning_rate") or name[:4] == "val_"]
    return {name: np.array([record.get(name, np.nan) for record in records]) for name in names}


def told_of_ranker(ranker, X):
    texts = [str(text) for text in ranker.gallery_texts_[:6]]
    scores, found = ranker.search_images(texts, k=3, warn_unknown=False)
    return {
        **told_of_history(ranker),
        **told_of_table("images", ranker.transform(X)),
        **told_of_table("texts", ranker.transform_text(texts)),
        **told_of_table("scores of texts", ranker.decision_function(X)),
        "scores of images": scores,
        "images found": found,
        "predicted": ranker.predict(X)[:8],
        **({"temperature": np.array(ranker.loss_.temperature)} if ranker.loss_.initial() else {}),
    }


def told_of_correlations(ranker, X):
    """No embedding: components of like correlations are any rotation of each other."""
    texts = [str(text) for text in ranker.gallery_texts_[:6]]
    scores, found = ranker.search_images(texts, k=3, warn_unknown=False)
    return {
        "correlations": ranker.correlations_[:6],
        "regularization": np.array(ranker.regularization_),
        **told_of_table("scores of texts", ranker.decision_function(X)),
        "scores of images": scores,
        "images found": found,
        "predicted": ranker.predict(X)[:8],
    }


def told_of_annotator(annotator, X):
    scores = annotator.decision_function(X)
    return {
        **told_of_history(annotator),
        **told_of_table("scores", scores.reshape(len(scores), -1)),
        **told_of_table("probabilities", annotator.predict_proba(X)),
        "counts": annotator.predict_count(X),
        "labels": as_words(annotator.predict(X))[:12],
    }


def as_words(labels):
    """Labels of any form, a str for each image."""
    if sparse.issparse(labels) or labels.ndim == 2:
        labels = [np.flatnonzero(row) for row in sparse.csr_array(labels).toarray()]
    elif labels.dtype != object:
        return labels.astype(str)
    return np.array([" ".join(map(str, own)) for own in labels])


def told_of_counts(predictor, X):
    return {**told_of_history(predictor), "counts": predictor.predict(X)}


def told_of_encoder(encoder, data):
    history = told_of_history(encoder) if getattr(encoder, "history_", None) else {}
    history.pop("stage", None)  # there is only one
    return {**history, **told_of_table("embedding", encoder.transform(data))}


# How they are fitted --------------------------------------------------------------------------------------------


class Killed(Exception):
    """Training was stopped from outside."""


class Killer:
    """A callback that ends the fit as the epoch ends, before its checkpoint is written."""

    def __init__(self, epoch):
        self.epoch = epoch

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, metadata, fitted_estimator):
        if context.task_name == "epoch" and metadata["epoch"] == self.epoch:
            raise Killed


def fitted(estimator, tell, data, folder):
    """Fit a clone on data, a function that returns X, y and what else `fit` takes."""
    X, y, more = data()
    return tell(clone(estimator).fit(X, y, **more), X)


def fitted_twice(estimator, tell, data, folder):
    X, y, more = data()
    return tell(clone(estimator).fit(X, y, **more).fit(X, y, **more), X)


def fitted_in_parts(estimator, tell, data, folder):
    X, y, _ = data()
    estimator = clone(estimator)
    for part in (slice(0, 30), slice(30, 60), slice(0, 60)):
        estimator.partial_fit(X[part], y[part])
    return tell(estimator, X)


def fitted_after(n_epochs):
    """Return how to fit an estimator that was killed in the epoch after so many."""

    def resumed(estimator, tell, data, folder):
        X, y, more = data()
        kept = clone(estimator).set_params(checkpoint=folder / "checkpoint")
        try:
            clone(kept).set_callbacks(Killer(n_epochs + 1)).fit(X, y, **more)
        except Killed:
            return tell(kept.fit(X, y, **more), X)
        raise AssertionError(f"training was over before epoch {n_epochs + 1}")

    return resumed


def fitted_on(*given):
    """Return data as a function, of what is data or returns some: X, y, and a dict of what else `fit` takes."""
    X, y, *more = given

    def data():
        named = {name: value() for name, value in (more[0] if more else {}).items()}
        return X(), y() if callable(y) else y, named

    return data


# Rankers --------------------------------------------------------------------------------------------------------

# Adam divides by the size of a gradient, also where that is 0 but for rounding, as in front of a batch norm: such a
# weight goes its own way on every CPU. SGD does not.
STEADY = {"optimizer": "sgd", "learning_rate": 0.02}
RANKER = {**HERE, "n_components": 8, "max_epochs": 3, "batch_size": 16, "learning_rate": 5e-3, "hubness": None}
CNN = {**READING, "weights": None}
VECTORIZER = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b")


def ranker(text_encoder=None, image_encoder=None, **parameters):
    return JointEmbeddingRanker(text_encoder, image_encoder, **{**RANKER, **parameters})


RANKERS = {
    "infonce": ranker(),
    "infonce, hubs": ranker(hubness=NearestNeighborNormalization(n_neighbors=8, bank_size=40)),
    "infonce, by text": ranker(loss=InfoNCELoss(side="text")),
    "infonce, by image": ranker(loss=InfoNCELoss(side="image")),
    "infonce, order": ranker(similarity="order", loss=InfoNCELoss(0.2)),
    "infonce, order-root": ranker(similarity="order-root", loss=InfoNCELoss(0.2)),
    "infonce, trained temperature": ranker(loss=InfoNCELoss(0.1, trainable=True)),
    "infonce, trained temperature, early stopping": ranker(
        loss=InfoNCELoss(trainable=True), early_stopping=True, validation_fraction=0.3
    ),
    "infonce, instances": ranker(instance_loss=InstanceLoss(0.5)),
    "ranking": ranker(loss=RankingLoss(0.3)),
    "ranking, hardest": ranker(loss=RankingLoss(0.3, negatives="hardest")),
    "ranking, hardest-anchor": ranker(loss=RankingLoss(0.3, negatives="hardest-anchor")),
    "ranking, semi-hard": ranker(loss=RankingLoss(0.3, negatives="semi-hard")),
    "ranking, random": ranker(loss=RankingLoss(0.3, negatives="random")),
    "ranking, two kinds": ranker(loss=RankingLoss(0.3, negatives=("hardest", "random"))),
    "ranking, by text": ranker(loss=RankingLoss(0.3, side="text")),
    "ranking, by image": ranker(loss=RankingLoss(0.3, side="image", negatives="hardest")),
    "ranking, order": ranker(loss=RankingLoss(0.05), similarity="order"),
    "ranking, order-root": ranker(loss=RankingLoss(0.05), similarity="order-root"),
    "ranking, instances": ranker(loss="ranking", instance_loss=InstanceLoss((1.0, 0.1), temperature=None, dropout=0.2)),
    "ranking, instances, temperature": ranker(loss="ranking", instance_loss=InstanceLoss((1.0, 0.1), dropout=0.2)),
    "two stages": ranker(instance_loss=InstanceLoss(0.0, pretrain_epochs=2), max_epochs=2),
    "two stages, instances": ranker(
        loss=RankingLoss(negatives="hardest"),
        instance_loss=InstanceLoss((1.0, 0.1), pretrain_epochs=2, pretrain_learning_rate=1e-2),
        max_epochs=2,
    ),
    "two stages, early stopping": ranker(
        instance_loss=InstanceLoss(0.5, pretrain_epochs=2), early_stopping=True, validation_fraction=0.3
    ),
    "mined": ranker(loss=RankingLoss(negatives="hardest", pool_size=40)),
    "mined, final relu": ranker(loss=RankingLoss(pool_size=200), instance_loss=InstanceLoss(0.0, relu=True)),
    "final relu": ranker(loss="ranking", instance_loss=InstanceLoss(0.5, relu=True)),
    "early stopping": ranker(
        early_stopping=True, validation_fraction=0.3, max_epochs=6, n_iter_no_change=2, learning_rate=0.05
    ),
    "one caption": ranker(captions_per_image=1),
    "adam, linear": ranker(optimizer="adam", lr_schedule="linear"),
    "sgd, step": ranker(optimizer="sgd", lr_schedule="step", learning_rate=0.05),
    "adamw, constant": ranker(optimizer="adamw", lr_schedule="constant", weight_decay=0.1),
    "clipped together": ranker(optimizer="sgd", clip_norm=0.05, learning_rate=0.05),
    "clipped alone": ranker(optimizer="sgd", clip_norm=0.05, clip_tensors=True, learning_rate=0.05),
    "no dropout": ranker(dropout=0.0),
    "hidden layers": ranker(
        TextNGramEncoder(12, word_dim=8), hidden_layer_sizes=(12,), text_hidden_layer_sizes=(16, 12), dropout=0.2
    ),
    "text head": ranker(TextNGramEncoder(12, word_dim=8)),
    "frozen texts": ranker(VECTORIZER),
    "frozen texts, hidden layers": ranker(
        VECTORIZER, text_hidden_layer_sizes=(12,), loss=RankingLoss(negatives="hardest")
    ),
    "frozen images": ranker(image_encoder=StandardScaler()),
    "n-grams": ranker(TextNGramEncoder(8, ngram_range=(1, 2), word_dim=8, hidden_layer_sizes=(8,), min_df=2)),
    "text cnn": ranker(TextCNNEncoder(8, width=0.01, word_dim=8, dropout=0.2), **STEADY),
    "text cnn, unshifted": ranker(
        TextCNNEncoder(8, width=0.01, word_dim=8, position_shift=False, word_learning_rate=0.1), **STEADY
    ),
    "text cnn, final relu": ranker(
        TextCNNEncoder(8, width=0.01, word_dim=8, position_shift=False, final_relu=True),
        **STEADY,
        loss=RankingLoss(pool_size=40),
    ),
    "text gru": ranker(TextGRUEncoder(8, word_dim=8, end_token=True)),
    "text gru, both ways": ranker(
        TextGRUEncoder(8, hidden_size=6, word_dim=8, bidirectional=True, pooling="mean", dropout=0.2)
    ),
    "text sequence": ranker(TextSequenceEncoder(8, phrase_dim=8, word_dim=8, n_positions=4, hidden_layer_sizes=(8,))),
}

# Name: ranker, how it is fitted, and on what.
PAIRED = fitted_on(features, captions)
TRAINED_TEMPERATURE = InfoNCELoss(trainable=True)
CORRELATIONS = {
    "auto": (CorrelationRanker(**HERE), fitted),
    "mean, reduced": (
        CorrelationRanker(captions="mean", n_reduced=(8, 40), regularization=(0.5, 0.2), power=1.0, **HERE),
        fitted,
    ),
    "side by side": (
        CorrelationRanker(make_union(VECTORIZER, CountVectorizer()), regularization=0.5, hubness=None, **HERE),
        fitted,
    ),
    "in parts": (CorrelationRanker(regularization=0.5, **HERE), fitted_in_parts),
}
RANKERS_OTHERWISE = {
    "groups": (ranker(), fitted, fitted_on(features, captions, {"groups": groups})),
    "groups, instances, early stopping": (
        ranker(instance_loss=InstanceLoss(0.5), early_stopping=True, validation_fraction=0.3),
        fitted,
        fitted_on(features, captions, {"groups": groups}),
    ),
    "sample weight": (ranker(), fitted, fitted_on(features, captions, {"sample_weight": weights})),
    "sample weight, instances": (
        ranker(loss="ranking", instance_loss=InstanceLoss(0.5)),
        fitted,
        fitted_on(features, captions, {"sample_weight": weights, "groups": groups}),
    ),
    "sparse": (ranker(), fitted, fitted_on(lambda: sparse.csr_array(np.maximum(features(), 0)), captions)),
    "int8": (ranker(), fitted, fitted_on(lambda: np.sign(np.rint(features())).astype(np.int8), captions)),
    "float64": (ranker(), fitted, fitted_on(lambda: features().astype(np.float64), first_captions)),
    "pairs": (ranker(), fitted, fitted_on(lambda: features()[instances()[:90]], lambda: all_captions()[:90])),
    "unequal numbers of captions": (
        ranker(captions_per_image=2, loss="ranking"),
        fitted,
        fitted_on(features, lambda: [own[: 1 + row % 2] for row, own in enumerate(captions())]),
    ),
    "numbers for captions": (ranker(), fitted, fitted_on(features, lambda: scenes().target.argmax(axis=1))),
    "warm start": (ranker(warm_start=True), fitted_twice, PAIRED),
    "warm start, trained temperature": (
        ranker(warm_start=True, loss=TRAINED_TEMPERATURE, instance_loss=InstanceLoss(0.5, pretrain_epochs=1)),
        fitted_twice,
        PAIRED,
    ),
    "in parts": (ranker(), fitted_in_parts, PAIRED),
    "in parts, trained temperature": (ranker(loss=TRAINED_TEMPERATURE, optimizer="adam"), fitted_in_parts, PAIRED),
    "resumed": (ranker(loss=TRAINED_TEMPERATURE), fitted_after(1), PAIRED),
    "resumed in the first stage": (
        ranker(instance_loss=InstanceLoss(0.5, pretrain_epochs=2), early_stopping=True, validation_fraction=0.3),
        fitted_after(1),
        PAIRED,
    ),
    "resumed in the second stage": (
        ranker(instance_loss=InstanceLoss(0.5, pretrain_epochs=2), early_stopping=True, validation_fraction=0.3),
        fitted_after(3),
        PAIRED,
    ),
}


def told_of_ensemble(ensemble, X):
    texts = [str(text) for text in ensemble.gallery_texts_[:6]]
    scores, found = ensemble.search_images(texts, k=3, warn_unknown=False)
    return {
        "weights": ensemble.weights_,
        "spreads": ensemble.spreads_,
        **told_of_table("images", ensemble.transform(X)),
        **told_of_table("texts", ensemble.transform_text(texts)),
        "scores of images": scores,
        "images found": found,
    }


ENSEMBLES = {
    "one solved and one trained": RankerEnsemble(
        [("solved", CorrelationRanker(device="cpu")), ("trained", ranker(random_state=None))], random_state=0
    ),
    "two, learnt weights, hubs": RankerEnsemble(
        [("words", ranker(random_state=None)), ("tfidf", ranker(VECTORIZER, random_state=None))], random_state=0
    ),
    "seeds of one": RankerEnsemble(ranker(), n_seeds=2, weights=None, random_state=0, hubness=None),
}

# On pictures, from end to end or behind a network that stays as it is.
END_TO_END = {**STEADY, "max_epochs": 2, "batch_size": 8}
RANKERS_OF_PICTURES = {
    "picture cnn": ranker(
        None, ImageCNNEncoder("squeezenet1_1", **CNN, n_components=8, backbone_learning_rate=0.1), **END_TO_END
    ),
    "picture cnn, head": ranker(
        None,
        ImageCNNEncoder("squeezenet1_1", **CNN, trainable=2, color_jitter=0.2, average_mirrored=True),
        **END_TO_END,
        hidden_layer_sizes=(8,),
    ),
    "picture cnn, two stages": ranker(
        TextCNNEncoder(8, width=0.01, word_dim=8),
        ImageCNNEncoder("shufflenet_v2_x0_5", **CNN, fix_batch_norm=False, hidden_layer_sizes=(8,), n_components=8),
        **END_TO_END,
        loss=RankingLoss(pool_size=20),
        instance_loss=InstanceLoss((1.0, 0.1), pretrain_epochs=1),
    ),
    "picture scales": ranker(
        None, MultiScaleCNNEncoder("shufflenet_v2_x0_5", **CNN, n_components=8, width=0.1), **END_TO_END
    ),
    "picture scales, trained": ranker(
        None,
        MultiScaleCNNEncoder("squeezenet1_1", **CNN, n_components=12, width=0.1, trainable="all"),
        **END_TO_END,
        loss=RankingLoss(negatives="hardest"),
    ),
    "frozen picture network": ranker(
        None, FullNetworkEmbedding("squeezenet1_1", **CNN, layers=2), **END_TO_END, loss="ranking"
    ),
}


# Recipes --------------------------------------------------------------------------------------------------------


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=4, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 10),
        )


RECIPES = {
    "full network": partial(recipes.full_network_pipeline, variant="SH"),
    "full network, maximum of hinges": partial(recipes.full_network_pipeline, variant="MH"),
    "full network, order": partial(recipes.full_network_pipeline, variant="MOE", released_maximum=True),
    "dual path": partial(recipes.dual_path_pipeline, text_width=0.01),
    "ranking objective": recipes.ranking_objective_pipeline,
    "ranking objective, skip-grams": partial(recipes.ranking_objective_pipeline, text="skip-grams"),
    "ranking objective, sequence": partial(recipes.ranking_objective_pipeline, text="sequence"),
    "vse++": recipes.vse_plus_plus,
    "vse++, order": partial(recipes.vse_plus_plus, order=True),
    "vse++, fine-tuned": partial(recipes.vse_plus_plus, fine_tune=True),
}


def fitted_recipe(make, folder):
    """Fit a recipe made small: fewer epochs, narrower, on smaller pictures."""
    pipeline = make(network(), random_state=0)
    ranker = pipeline["ranker"]
    ranker.set_params(max_epochs=2, batch_size=8, device="cpu")
    if ranker.instance_loss is not None:
        ranker.set_params(instance_loss__pretrain_epochs=1)
    ranker.set_params(n_components=8, text_encoder__n_components=8, text_encoder__word_dim=8)
    if ranker.image_encoder is None:
        pipeline.set_params(features__image_size=32, features__precision="float32", features__device="cpu")
    else:
        ranker.set_params(image_encoder__image_size=32, image_encoder__precision="float32", image_encoder__device="cpu")
    pipeline.fit(pictures(), captions()[:N_PICTURES])
    return told_of_ranker(pipeline[-1], pipeline[:-1].transform(pictures()) if len(pipeline) > 1 else pictures())


# Annotators -----------------------------------------------------------------------------------------------------

ANNOTATOR = {
    **HERE,
    "hidden_layer_sizes": (12,),
    "tag_hidden_layer_sizes": (8,),
    "max_epochs": 3,
    "batch_size": 16,
    "learning_rate": 1e-2,
    "validation_fraction": 0.3,
    "n_folds": None,
    "members": None,
}


def annotator(image_encoder=None, **parameters):
    return MultiLabelAnnotator(image_encoder, **{"label_count": counts(), **ANNOTATOR, **parameters})


def counts(loss="classification", **parameters):
    """How an annotator counts."""
    return LabelCountPredictor(loss, **{"hidden_layer_sizes": (8,), **parameters})


def tags():
    return scenes().tags


LABEL_LISTS = fitted_on(features, tags)
WITH_TAGS = fitted_on(features_and_tags, indicator)
TAGS = slice(N_FEATURES, None)

# Fitted on lists of labels.
ANNOTATORS = {
    "bce": annotator(),
    "softmax": annotator(loss="softmax"),
    "asymmetric": annotator(loss=AsymmetricLoss(3.0, 0.5, 0.1)),
    "asymmetric, calibrated": annotator(loss="asymmetric", calibrate=True),
    "regression": annotator(label_count=counts("regression")),
    "jointly": annotator(label_count=counts(joint=True)),
    "jointly, regression": annotator(label_count=counts("regression", joint=True), loss="softmax"),
    "jointly, early stopping": annotator(
        label_count=counts(joint=True), early_stopping=True, max_epochs=5, n_iter_no_change=1
    ),
    "rounded": annotator(label_count=counts(rounding="round")),
    "rounded, regression": annotator(label_count=counts("regression", rounding="round")),
    "rounded down": annotator(label_count=counts(rounding="floor")),
    "rounded down, regression": annotator(label_count=counts("regression", rounding="floor")),
    "threshold": annotator(label_count="threshold"),
    "label thresholds": annotator(label_count="label-thresholds"),
    "three labels": annotator(label_count=3),
    "calibrated": annotator(calibrate=True),
    "calibrated, softmax": annotator(calibrate=True, loss="softmax", label_count="threshold"),
    "folds": annotator(n_folds="auto"),
    "three folds, calibrated": annotator(n_folds=3, calibrate=True, label_count=counts("regression")),
    "early stopping": annotator(early_stopping=True, max_epochs=6, n_iter_no_change=2, learning_rate=0.05),
    "balanced": annotator(class_weight="balanced"),
    "class weights": annotator(class_weight={"red": 3.0, "circle": 0.5}),
    "no hidden layers": annotator(hidden_layer_sizes=(), label_count=counts(hidden_layer_sizes=()), dropout=0.0),
    "adam, linear": annotator(optimizer="adam", lr_schedule="linear"),
    "sgd, step": annotator(optimizer="sgd", lr_schedule="step", learning_rate=0.1),
    "constant": annotator(lr_schedule="constant", weight_decay=0.1),
}

# Name: annotator, how it is fitted, and on what.
ANNOTATORS_OTHERWISE = {
    "indicator": (annotator(), fitted, fitted_on(features, indicator)),
    "sparse indicator": (annotator(), fitted, fitted_on(features, lambda: sparse.csr_array(indicator()))),
    "sparse features": (annotator(), fitted, fitted_on(lambda: sparse.csr_array(np.maximum(features(), 0)), tags)),
    "unlabeled dropped": (annotator(), fitted, fitted_on(features, indicator, {"sample_weight": labeled})),
    "partly known": (annotator(), fitted, fitted_on(features, partly_known)),
    "partly known, softmax": (
        annotator(loss="softmax", label_count=counts(joint=True), calibrate=True),
        fitted,
        fitted_on(features, partly_known),
    ),
    "tags": (annotator(tag_features=TAGS), fitted, WITH_TAGS),
    "tags, jointly": (
        annotator(tag_features=TAGS, tag_hidden_layer_sizes=(8, 6), label_count=counts(joint=True), n_folds=3),
        fitted,
        WITH_TAGS,
    ),
    "tags alone": (annotator(tag_features=slice(None)), fitted, fitted_on(tag_columns, indicator)),
    "sample weight": (annotator(), fitted, fitted_on(features, tags, {"sample_weight": weights})),
    "sample weight, folds, calibrated": (
        annotator(n_folds=3, calibrate=True),
        fitted,
        fitted_on(features, tags, {"sample_weight": weights}),
    ),
    "groups": (annotator(), fitted, fitted_on(features, tags, {"groups": groups})),
    "groups, folds": (annotator(n_folds=3), fitted, fitted_on(features, tags, {"groups": groups})),
    "one label": (annotator(), fitted, fitted_on(features, one_label)),
    "one label, calibrated": (
        annotator(calibrate=True, early_stopping=True, class_weight="balanced"),
        fitted,
        fitted_on(features, one_label),
    ),
    "one of two": (annotator(n_folds=3, calibrate=True), fitted, fitted_on(features, lambda: indicator()[:, -1] > 0)),
    "warm start": (annotator(warm_start=True), fitted_twice, LABEL_LISTS),
    "resumed": (annotator(), fitted_after(1), LABEL_LISTS),
    "resumed, counts": (annotator(early_stopping=True), fitted_after(4), LABEL_LISTS),
    "resumed, folds": (annotator(n_folds=3, calibrate=True), fitted_after(1), LABEL_LISTS),
}

TRAINED_CNN = ImageCNNEncoder("squeezenet1_1", **CNN, backbone_learning_rate=0.1)
ANNOTATORS_OF_PICTURES = {
    "picture cnn": annotator(TRAINED_CNN, **END_TO_END),
    "picture cnn, jointly": annotator(TRAINED_CNN, **END_TO_END, label_count=counts(joint=True)),
    "picture scales": annotator(
        MultiScaleCNNEncoder("shufflenet_v2_x0_5", **CNN, n_components=8, width=0.1), **END_TO_END
    ),
    "frozen picture network": annotator(FullNetworkEmbedding("squeezenet1_1", **CNN, layers=2), **END_TO_END),
}


def frame():
    return pd.DataFrame({"image": list(pictures()), "tags": [own[0].split()[:3] for own in captions()[:N_PICTURES]]})


def fitted_pipeline(image_encoder, folder):
    """Fit a pipeline on pictures and tags."""
    pipeline = make_annotation_pipeline(annotator(**END_TO_END), image_encoder=image_encoder)
    pipeline.fit(frame(), tags()[:N_PICTURES])
    return told_of_annotator(pipeline[-1], pipeline[:-1].transform(frame()))


# Numbers of labels ----------------------------------------------------------------------------------------------

COUNTS = {
    **HERE,
    "hidden_layer_sizes": (8,),
    "max_epochs": 4,
    "batch_size": 16,
    "learning_rate": 1e-2,
    "validation_fraction": 0.3,
}


def count_predictor(*given, **parameters):
    return LabelCountPredictor(*given, **{**COUNTS, **parameters})


COUNTED = fitted_on(features, indicator)
COUNT_PREDICTORS = {
    "classification": (count_predictor("classification"), fitted, COUNTED),
    "classification, rounded": (count_predictor("classification", rounding="round"), fitted, COUNTED),
    "classification, rounded down": (count_predictor("classification", rounding="floor"), fitted, COUNTED),
    "regression": (count_predictor("regression"), fitted, COUNTED),
    "regression, rounded": (count_predictor("regression", rounding="round"), fitted, COUNTED),
    "regression, rounded down": (count_predictor("regression", rounding="floor"), fitted, COUNTED),
    "early stopping": (
        count_predictor(early_stopping=True, max_epochs=8, n_iter_no_change=2, learning_rate=0.1),
        fitted,
        COUNTED,
    ),
    "numbers": (
        count_predictor(optimizer="sgd", lr_schedule="step", dropout=0.0),
        fitted,
        fitted_on(features, lambda: indicator().sum(axis=1).astype(int)),
    ),
    "lists, sparse features": (
        count_predictor("regression", early_stopping=True),
        fitted,
        fitted_on(lambda: sparse.csr_array(np.maximum(features(), 0)), tags),
    ),
    "sample weight": (count_predictor(), fitted, fitted_on(features, indicator, {"sample_weight": weights})),
    "warm start": (count_predictor(warm_start=True), fitted_twice, COUNTED),
    "resumed": (count_predictor(early_stopping=True), fitted_after(2), COUNTED),
}


# Encoders alone -------------------------------------------------------------------------------------------------

ALONE = {**HERE, "max_epochs": 3, "batch_size": 16, "learning_rate": 5e-3}
PICTURES_ALONE = {**CNN, "random_state": 0, "max_epochs": 2, "learning_rate": 2e-4}


def vectors():
    rng = np.random.default_rng(2)
    return {word: np.round(rng.normal(size=8), 3) for word in ("red", "blue", "circle", "square", "left")}


TEXT_CNN_ALONE = {**ALONE, "learning_rate": 2e-4}
TEXT_ENCODERS = {
    "n-grams": TextNGramEncoder(8, word_dim=8, **ALONE),
    "n-grams, pairs": TextNGramEncoder(8, ngram_range=(1, 2), skip=1, min_df=2, word_dim=8, **ALONE),
    "n-grams, hidden layer": TextNGramEncoder(8, hidden_layer_sizes=(8,), word_vectors=vectors(), **ALONE),
    "text cnn": TextCNNEncoder(8, width=0.01, word_dim=8, **TEXT_CNN_ALONE),
    "text cnn, unshifted": TextCNNEncoder(
        8, width=0.01, word_dim=8, position_shift=False, final_relu=True, **TEXT_CNN_ALONE
    ),
    "text cnn, fixed words": TextCNNEncoder(
        8, width=0.01, word_vectors=vectors(), trainable_words=False, dropout=0.2, **TEXT_CNN_ALONE
    ),
    "text gru": TextGRUEncoder(8, word_dim=8, **ALONE),
    "text gru, both ways": TextGRUEncoder(8, word_dim=8, bidirectional=True, pooling="max", dropout=0.2, **ALONE),
    "text sequence": TextSequenceEncoder(8, phrase_dim=8, word_dim=8, dropout=0.2, **ALONE),
}
PICTURE_ENCODERS = {
    "picture cnn": ImageCNNEncoder("squeezenet1_1", **PICTURES_ALONE, backbone_learning_rate=0.1),
    "picture cnn, head": ImageCNNEncoder(
        "squeezenet1_1", **PICTURES_ALONE, n_components=8, hidden_layer_sizes=(8,), dropout=0.2, color_jitter=0.2
    ),
    "picture cnn, batch norms": ImageCNNEncoder(
        "shufflenet_v2_x0_5", **PICTURES_ALONE, trainable=1, fix_batch_norm=False, crop_scale=None
    ),
    "picture scales": MultiScaleCNNEncoder("shufflenet_v2_x0_5", **PICTURES_ALONE, n_components=8, width=0.1),
    "picture scales, trained": MultiScaleCNNEncoder(
        "squeezenet1_1", **PICTURES_ALONE, n_components=8, width=0.1, trainable="all", average_mirrored=True
    ),
}
FULL_NETWORKS = {
    "ternary": {"layers": 2},
    "not discretized": {"layers": 2, "discretize": False},
    "after the activation": {"layers": "last", "discretize": False, "activation": "post"},
    "ten crops": {"crops": "ten"},
}


def fitted_full_network(parameters, folder):
    """Embed pictures; the network has weights drawn from a seed of its own."""
    embedding = FullNetworkEmbedding(network(), **READING, **parameters)
    return told_of_table("embedding", embedding.fit_transform(pictures()))


def fitted_tags(vectorizer, folder):
    marks = vectorizer.fit_transform([own[0].split() for own in captions()])
    return {**told_of_table("marks", marks), "names": vectorizer.get_feature_names_out()}


TAG_VECTORIZERS = {
    "sparse": TagVectorizer(max_features=20, exclude=("a",)),
    "dense": TagVectorizer(min_df=3, sparse_output=False),
}


# All of them ----------------------------------------------------------------------------------------------------

CAPTIONED = fitted_on(pictures, lambda: captions()[:N_PICTURES])
LABELED = fitted_on(pictures, lambda: tags()[:N_PICTURES])
TEXTS = fitted_on(all_captions, instances)
TEXTS_ALONE = fitted_on(all_captions, None)
NUMBERED = fitted_on(pictures, lambda: np.arange(N_PICTURES) // 2)

_OF_PICTURES = {
    **{f"ranker: {name}": partial(fitted, it, told_of_ranker, CAPTIONED) for name, it in RANKERS_OF_PICTURES.items()},
    **{f"recipe: {name}": partial(fitted_recipe, make) for name, make in RECIPES.items()},
    **{
        f"annotator: {name}": partial(fitted, it, told_of_annotator, LABELED)
        for name, it in ANNOTATORS_OF_PICTURES.items()
    },
    "annotator: pipeline": partial(fitted_pipeline, FullNetworkEmbedding("squeezenet1_1", **CNN, layers=2)),
    "annotator: pipeline, trained": partial(fitted_pipeline, TRAINED_CNN),
    **{f"encoder: {name}": partial(fitted, it, told_of_encoder, NUMBERED) for name, it in PICTURE_ENCODERS.items()},
    **{f"full network: {name}": partial(fitted_full_network, parameters) for name, parameters in FULL_NETWORKS.items()},
}
CASES = {
    **{f"ranker: {name}": partial(fitted, it, told_of_ranker, PAIRED) for name, it in RANKERS.items()},
    **{
        f"ranker: {name}": partial(fit, it, told_of_ranker, data) for name, (it, fit, data) in RANKERS_OTHERWISE.items()
    },
    **{
        f"correlation: {name}": partial(fit, it, told_of_correlations, PAIRED)
        for name, (it, fit) in CORRELATIONS.items()
    },
    **{f"ensemble: {name}": partial(fitted, it, told_of_ensemble, PAIRED) for name, it in ENSEMBLES.items()},
    **{f"annotator: {name}": partial(fitted, it, told_of_annotator, LABEL_LISTS) for name, it in ANNOTATORS.items()},
    **{
        f"annotator: {name}": partial(fit, it, told_of_annotator, data)
        for name, (it, fit, data) in ANNOTATORS_OTHERWISE.items()
    },
    **{f"counts: {name}": partial(fit, it, told_of_counts, data) for name, (it, fit, data) in COUNT_PREDICTORS.items()},
    **{f"encoder: {name}": partial(fitted, it, told_of_encoder, TEXTS) for name, it in TEXT_ENCODERS.items()},
    "encoder: text gru, each an instance": partial(fitted, TEXT_ENCODERS["text gru"], told_of_encoder, TEXTS_ALONE),
    **{f"tags: {name}": partial(fitted_tags, it) for name, it in TAG_VECTORIZERS.items()},
    **_OF_PICTURES,
}
# What resizes pictures: torch rounds their bytes otherwise where the CPU has no AVX2.
READS_PICTURES = frozenset(_OF_PICTURES)
# What trains batch norms, which spread what another CPU rounds otherwise.
IS_ROUGH = READS_PICTURES | {name for name in CASES if "text cnn" in name}
