"""What networks were trained on: said where it is known, and nowhere else."""

import pytest
import torch

from sklearn_mm.features import FullNetworkEmbedding, ImageCNNEncoder
from sklearn_mm.nn.backbones import backbone_training_data
from sklearn_mm.nn.training_data import data_in_card, data_in_tag, training_data


@pytest.mark.parametrize(
    ("backbone", "data"),
    [
        ("efficientnet_lite0", ("ImageNet-1k",)),
        ("resnet50", ("ImageNet-1k",)),
        ("vit_h_14", ("Instagram, by hashtags (SWAG)", "ImageNet-1k")),
    ],
)
def test_the_data_of_pretrained_backbones_are_said(backbone, data):
    assert backbone_training_data(backbone) == data
    assert FullNetworkEmbedding(backbone).trained_on_ == data
    assert ImageCNNEncoder(backbone).trained_on_ == data


def test_random_weights_come_from_no_data_and_those_of_ones_own_from_unknown_ones():
    assert FullNetworkEmbedding(weights=None).trained_on_ == ()
    assert FullNetworkEmbedding(weights="weights.pt").trained_on_ is None
    assert ImageCNNEncoder(torch.nn.Linear(2, 2)).trained_on_ is None


def test_features_of_unknown_origin_are_of_unknown_data():
    assert FullNetworkEmbedding().fit([[0.0, 1.0], [1.0, 0.0]]).trained_on_ is None


def test_timms_tags_name_the_data():
    pytest.importorskip("timm")
    assert backbone_training_data("timm:vit_base_patch16_224.augreg2_in21k_ft_in1k") == ("ImageNet-21k", "ImageNet-1k")
    assert backbone_training_data("timm:vit_base_patch16_clip_224.openai") == ("WebImageText, 400 million pairs",)
    assert data_in_tag("untold") is None


def test_encoders_taught_on_flickr30ks_captions_are_told_from_others():
    assert "Flickr30k captions" in training_data("sentence-transformers/all-MiniLM-L6-v2")
    assert "Flickr30k captions" not in training_data("glove.6B.50d.txt")
    assert training_data("google/siglip2-base-patch16-224") == ("WebLI",)
    assert training_data("somebody/something") is None


def test_a_card_without_a_head_or_a_list_says_nothing(tmp_path):
    assert data_in_card(tmp_path) is None
    (tmp_path / "README.md").write_text("# A model\ndatasets:\n- snli\n")
    assert data_in_card(tmp_path) is None
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert data_in_card(tmp_path) is None
    (tmp_path / "README.md").write_text("---\nlicense: mit\ndatasets:\n- snli\n- ms_marco\n---\n")
    assert data_in_card(tmp_path) == ("snli", "ms_marco")
