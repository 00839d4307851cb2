"""The recipes are ordinary pipelines, and hold their sources' settings."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from torch import nn

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.retrieval import recipes


@pytest.fixture(scope="module")
def network():
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


@pytest.fixture(scope="module")
def scenes():
    return make_captioned_shapes(40, image_size=32, random_state=0)


RECIPES = {
    "full network": recipes.full_network_pipeline,
    "full network, maximum of hinges": lambda backbone: recipes.full_network_pipeline(backbone, variant="MH"),
    "full network, order": lambda backbone: recipes.full_network_pipeline(backbone, variant="SOE"),
    "dual path": lambda backbone: recipes.dual_path_pipeline(backbone, text_width=0.05),
    "ranking objective": recipes.ranking_objective_pipeline,
    "ranking objective, skip-grams": lambda backbone: recipes.ranking_objective_pipeline(backbone, text="skip-grams"),
    "ranking objective, sequence": lambda backbone: recipes.ranking_objective_pipeline(backbone, text="sequence"),
    "VSE++": recipes.vse_plus_plus,
    "VSE++, order": lambda backbone: recipes.vse_plus_plus(backbone, order=True),
    "VSE++, fine-tuned": lambda backbone: recipes.vse_plus_plus(backbone, fine_tune=True),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_searches_and_persists_as_any_pipeline(name, network, scenes, tmp_path):
    pipeline = clone(RECIPES[name](network))
    assert isinstance(pipeline, Pipeline)
    ranker = pipeline["ranker"]
    ranker.set_params(max_epochs=1, random_state=0)
    if ranker.instance_loss is not None:
        ranker.set_params(instance_loss__pretrain_epochs=min(1, ranker.instance_loss.pretrain_epochs))
    ranker.set_params(n_components=16, text_encoder__n_components=16, text_encoder__word_dim=16)  # small and quick
    if ranker.image_encoder is None:
        pipeline.set_params(features__image_size=32)
    else:
        ranker.set_params(image_encoder__image_size=32)
    pipeline.fit(list(scenes.images), scenes.captions)
    scores, indices = pipeline["ranker"].search_images([scenes.captions[0][0]], k=3)
    assert np.isfinite(scores).all()
    assert indices.shape == (1, 3)
    joblib.dump(pipeline, tmp_path / "model")
    opened = joblib.load(tmp_path / "model")
    assert opened.predict(list(scenes.images[:4])).tolist() == pipeline.predict(list(scenes.images[:4])).tolist()


def test_the_source_settings_of_the_full_network():
    """The tables of the authors' launchers."""
    for variant, similarity, margin, width, words, rate in [
        ("SH", "cosine", 0.2, 1536, 1024, 2e-4),
        ("MH", "cosine", 0.2, 1024, 1024, 2e-4),
        ("SOE", "order", 0.05, 1024, 1024, 1e-3),
        ("MOE", "order", 0.05, 1536, 1536, 1e-4),
    ]:
        pipeline = recipes.full_network_pipeline(variant=variant)
        ranker = pipeline["ranker"]
        assert (ranker.similarity, ranker.loss.margin, ranker.n_components, ranker.learning_rate) == (
            similarity,
            margin,
            width,
            rate,
        )
        assert (ranker.text_encoder.word_dim, ranker.text_encoder.end_token) == (words, True)
        assert (ranker.clip_norm, ranker.clip_tensors, ranker.weight_decay, ranker.dropout) == (2.0, True, 0.0, 0.0)
        assert pipeline["features"].thresholds == (-0.25, 0.15)
    assert (
        recipes.full_network_pipeline(variant="MH", released_maximum=True)["ranker"].loss.negatives == "hardest-anchor"
    )
    assert recipes.full_network_pipeline(variant="MH")["ranker"].loss.negatives == "hardest"


def test_ternary_features_reach_the_linear_map_without_being_scaled_to_unit_length(network, scenes):
    pipeline = recipes.full_network_pipeline(network, random_state=0)
    pipeline.set_params(features__image_size=32, ranker__max_epochs=1, ranker__early_stopping=False)
    pipeline["ranker"].set_params(n_components=16, text_encoder__n_components=16)
    features = pipeline["features"].fit_transform(list(scenes.images))
    head = pipeline.fit(list(scenes.images), scenes.captions)["ranker"].image_head_
    assert set(np.unique(features)) <= {-1, 0, 1}
    images = np.unique(features, axis=0)  # equal rows are one image
    np.testing.assert_allclose(head.mean.numpy(), images.mean(axis=0), atol=1e-6)  # of -1, 0 and 1 as they are
    assert [type(layer) for layer in head.layers] == [nn.Linear]


def test_the_source_settings_of_the_dual_path():
    ranker = recipes.dual_path_pipeline()["ranker"]
    assert (ranker.instance_loss.pretrain_epochs, ranker.max_epochs, ranker.instance_loss.dropout) == (240, 60, 0.75)
    assert (ranker.optimizer, ranker.learning_rate, ranker.weight_decay) == ("sgd", 0.1, 1e-4)
    assert (ranker.loss.negatives, ranker.captions_per_image) == (("hardest", "random"), 1)
    assert (ranker.text_encoder.width, ranker.text_encoder.position_shift) == (1.0, True)
    assert ranker.instance_loss.weight == (1.0, 0.1)  # 2 : 1 : 0.1 where half of a batch is ranked
    assert (ranker.batch_size, ranker.loss.pool_size, ranker.loss.margin, ranker.instance_loss.relu) == (
        32,
        256,
        1.0,
        True,
    )
    assert ranker.instance_loss.temperature is None
    assert ranker.text_encoder.word_learning_rate == 1e-3
    assert ranker.image_encoder.average_mirrored
    assert ranker.image_encoder.fix_batch_norm


def test_the_source_settings_of_vse_plus_plus():
    plain, order, sums = (
        recipes.vse_plus_plus(order=order, hard_negatives=hard)["ranker"]
        for order, hard in [(False, True), (True, True), (True, False)]
    )
    assert (plain.similarity, plain.loss.negatives, plain.loss.margin) == ("cosine", "hardest", 0.2)
    assert not plain.clip_tensors
    assert (order.similarity, order.loss.negatives) == ("order-root", "hardest")  # with the root, and any sign
    assert (sums.similarity, sums.loss.negatives, sums.loss.margin) == ("order", "all", 0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recipes.full_network_pipeline(variant="XH"), "variant must be one of"),
        (lambda: recipes.ranking_objective_pipeline(text="bags"), "text must be one of"),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(call, message):
    with pytest.raises(ValueError, match=message):
        call()
