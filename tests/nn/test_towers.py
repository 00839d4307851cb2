import torch

from sklearn_mm.nn.text_ngram import TextNGram
from sklearn_mm.nn.towers import FeatureTower
from tests.nn.test_text_cnn import pack


def test_a_constant_feature_has_no_say():
    tower = FeatureTower(2, 4).eval()
    tower.standardize_by(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(tower(torch.tensor([[3.0, 5.0]])), tower(torch.tensor([[3.0, 99.0]])))


def test_features_are_standardised_before_the_map():
    tower = FeatureTower(1, 4).eval()
    plain = tower(torch.tensor([[1.0]]))
    tower.standardize_by(torch.tensor([10.0]), torch.tensor([4.0]))
    torch.testing.assert_close(tower(torch.tensor([[14.0]])), plain)


def test_integers_and_floats_give_the_same():
    tower = FeatureTower(3, 4).eval()
    ternary = torch.tensor([[-1, 0, 1]], dtype=torch.int8)
    torch.testing.assert_close(tower(ternary), tower(ternary.float()))


def test_a_bag_forgets_the_order_of_words():
    network = TextNGram(10, 4, term_dim=6, hidden_layer_sizes=(8,)).eval()
    torch.testing.assert_close(network(pack([[1, 2, 3]])), network(pack([[3, 1, 2]])))


def test_an_empty_bag_is_finite():
    network = TextNGram(10, 4, term_dim=6).eval()
    assert torch.isfinite(network(pack([[], [1]]))).all()
