"""What all losses have in common: parameters, names, a way to write one's own."""

import inspect
import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from torch import nn

import sklearn_mm.losses
from sklearn_mm._params import validate_params
from sklearn_mm.losses import (
    LABEL_LOSSES,
    PAIR_LOSSES,
    AsymmetricLoss,
    BinaryLoss,
    InfoNCELoss,
    InstanceClassifier,
    InstanceLoss,
    LabelLoss,
    PairLoss,
    PairScores,
    RankingLoss,
    SigmoidLoss,
    SoftmaxLoss,
    asymmetric_label_loss,
    binary_label_loss,
    instance_loss,
    resolve_loss,
    softmax_label_loss,
)
from sklearn_mm.persistence import load, save

LOSSES = [
    InfoNCELoss(0.1, trainable=True, side="image"),
    RankingLoss(0.3, ("all", "hardest"), side="text", pool_size=256),
    SigmoidLoss(0.2, -5.0, trainable=False),
    InstanceLoss((1.0, 0.5), temperature=None, dropout=0.75, pretrain_epochs=3, pretrain_learning_rate=0.1, relu=True),
    BinaryLoss(),
    SoftmaxLoss(),
    AsymmetricLoss(2.0, 0.0, 0.1),
]


class LogisticLoss(PairLoss):
    """A smooth hinge whose sharpness is trained: a loss as somebody else would write it."""

    def __init__(self, sharpness=1.0):
        self.sharpness = sharpness

    def __call__(self, pairs, **learnt):
        sharpness = learnt["log_sharpness"].exp() if learnt else self.sharpness
        gap = pairs.scores[:, : len(pairs.positive)] - pairs.positive  # (n_images, n_pairs)
        return nn.functional.softplus(sharpness * gap).masked_fill(pairs.not_negative, 0).sum(dim=0)

    def initial(self):
        return {"log_sharpness": math.log(self.sharpness)}

    def with_learnt(self, values):
        return LogisticLoss(math.exp(values["log_sharpness"]))


class SquaredLoss(LabelLoss):
    def __call__(self, logits, targets, label_weight=None):
        return ((torch.sigmoid(logits) - targets) ** 2).nansum(dim=1)


class Holder(BaseEstimator):
    def __init__(self, loss=None):
        self.loss = loss


@pytest.fixture
def pairs():
    return PairScores(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 1]), torch.eye(2).bool())


def _ids(loss):
    return type(loss).__name__


def test_every_public_loss_is_checked_here():
    public = [getattr(sklearn_mm.losses, name) for name in sklearn_mm.losses.__all__]
    losses = {thing for thing in public if inspect.isclass(thing) and issubclass(thing, BaseEstimator)}
    assert {type(loss) for loss in LOSSES} == losses - {PairLoss, LabelLoss}


@pytest.mark.parametrize("loss", [*LOSSES, LogisticLoss(2.0)], ids=_ids)
def test_losses_are_cloned_pickled_and_searched_as_estimators_are(loss):
    validate_params(loss)
    for copy in (clone(loss), pickle.loads(pickle.dumps(loss))):
        assert copy is not loss
        assert copy.get_params() == loss.get_params()
    holder = clone(Holder(loss))
    assert holder.loss is not loss
    for name, value in loss.get_params().items():
        assert holder.get_params()[f"loss__{name}"] == value
        holder.set_params(**{f"loss__{name}": "another"})
        assert getattr(holder.loss, name) == "another"


@pytest.mark.parametrize("loss", LOSSES, ids=_ids)
def test_losses_go_to_a_folder_and_back(loss, tmp_path):
    save(loss, tmp_path / "loss")
    opened = load(tmp_path / "loss")
    assert type(opened) is type(loss)
    assert opened.get_params() == loss.get_params()


@pytest.mark.parametrize("loss", LOSSES, ids=_ids)
def test_every_parameter_has_a_constraint_and_the_defaults_meet_it(loss):
    assert set(loss._parameter_constraints) == set(loss.get_params())
    validate_params(type(loss)())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (InfoNCELoss(temperature=0.0), "'temperature' parameter of InfoNCELoss"),
        (InfoNCELoss(trainable="yes"), "'trainable' parameter of InfoNCELoss"),
        (InfoNCELoss(side="left"), "'side' parameter of InfoNCELoss"),
        (RankingLoss(margin=-0.1), "'margin' parameter of RankingLoss"),
        (RankingLoss(negatives="easiest"), "'negatives' parameter of RankingLoss"),
        (RankingLoss(negatives=("all", "easiest")), r"negatives must be one or two of \['all', .*got \('all', 'easie"),
        (RankingLoss(negatives=["all"]), "negatives must be one or two of"),
        (RankingLoss(side="left"), "'side' parameter of RankingLoss"),
        (RankingLoss(pool_size=-1), "'pool_size' parameter of RankingLoss"),
        (SigmoidLoss(temperature=-1.0), "'temperature' parameter of SigmoidLoss"),
        (SigmoidLoss(bias=None), "'bias' parameter of SigmoidLoss"),
        (AsymmetricLoss(gamma_negative=-1.0), "'gamma_negative' parameter of AsymmetricLoss"),
        (AsymmetricLoss(margin=1.0), "'margin' parameter of AsymmetricLoss"),
        (InstanceLoss(weight=-1.0), "'weight' parameter of InstanceLoss"),
        (InstanceLoss(weight=(1.0, -1.0)), "weight must be a number of at least 0, or two of them for images and te"),
        (InstanceLoss(weight=(1.0, 1.0, 1.0)), r"weight must be .* got \(1.0, 1.0, 1.0\)"),
        (InstanceLoss(temperature=0.0), "'temperature' parameter of InstanceLoss"),
        (InstanceLoss(dropout=1.0), "'dropout' parameter of InstanceLoss"),
        (InstanceLoss(pretrain_epochs=-1), "'pretrain_epochs' parameter of InstanceLoss"),
    ],
    ids=str,
)
def test_what_a_parameter_may_not_be_is_said_with_its_name(loss, message):
    with pytest.raises(ValueError, match=message):
        validate_params(loss)


def test_a_short_name_is_the_loss_with_default_parameters():
    assert {name: resolve_loss(name, PairLoss, PAIR_LOSSES) for name in PAIR_LOSSES}.keys() == {
        "infonce",
        "ranking",
        "sigmoid",
    }
    assert set(LABEL_LOSSES) == {"bce", "softmax", "asymmetric"}
    loss = resolve_loss("infonce", PairLoss, PAIR_LOSSES)
    assert isinstance(loss, InfoNCELoss)
    assert loss.get_params() == {"temperature": 0.07, "trainable": False, "side": "both"}
    assert isinstance(resolve_loss("bce", LabelLoss, LABEL_LOSSES), BinaryLoss)


@pytest.mark.parametrize("loss", [RankingLoss(0.5), LogisticLoss(3.0)], ids=_ids)
def test_an_object_is_the_loss_itself(loss):
    assert resolve_loss(loss, PairLoss, PAIR_LOSSES) is loss


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hinge", "loss must be 'infonce', 'ranking', 'sigmoid' or an object derived from PairLoss, got 'hinge'"),
        (RankingLoss, r"got the class RankingLoss; call it: RankingLoss\(...\)"),
        (BinaryLoss(), r"derived from PairLoss, got BinaryLoss\(\)"),
        (None, "got None"),
    ],
)
def test_what_is_no_loss_of_the_kind_is_refused_with_what_is(given, message):
    for kind in (ValueError, TypeError):  # scikit-learn's own error for a parameter is both
        with pytest.raises(kind, match=message):
            resolve_loss(given, PairLoss, PAIR_LOSSES)


def test_a_loss_of_ones_own_takes_less_than_thirty_lines_and_trains(pairs):
    assert len(inspect.getsource(LogisticLoss).splitlines()) < 30
    loss = LogisticLoss(2.0)
    assert loss.pool_size == 0
    assert loss.short_name is None
    learnt = {name: torch.tensor(value, requires_grad=True) for name, value in loss.initial().items()}
    torch.testing.assert_close(loss(pairs, **learnt), loss(pairs))
    loss(pairs, **learnt).mean().backward()
    assert learnt["log_sharpness"].grad < 0  # every pair is right: the sharper, the better
    assert loss.with_learnt({"log_sharpness": 0.0}).sharpness == 1.0


def test_a_loss_without_a_call_says_what_it_needs(pairs):
    with pytest.raises(NotImplementedError, match=r"PairLoss needs a method __call__\(self, pairs, \*\*learnt\)"):
        PairLoss()(pairs)
    with pytest.raises(NotImplementedError, match=r"LabelLoss needs a method __call__\(self, logits, targets, label_w"):
        LabelLoss()(torch.zeros(1, 1), torch.zeros(1, 1))


@pytest.mark.parametrize(
    ("loss", "function", "options", "shares"),
    [
        (BinaryLoss(), binary_label_loss, {}, False),
        (SoftmaxLoss(), softmax_label_loss, {}, True),
        (AsymmetricLoss(), asymmetric_label_loss, {}, False),
        (
            AsymmetricLoss(2.0, 0.5, 0.1),
            asymmetric_label_loss,
            {"gamma_negative": 2.0, "gamma_positive": 0.5, "margin": 0.1},
            False,
        ),
    ],
    ids=lambda part: getattr(part, "__name__", str(part)),  # an address of a function names no test
)
def test_a_label_loss_is_its_function(loss, function, options, shares):
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 3), torch.tensor([[1, 0, 1], [0, 0, 0], [1, math.nan, 0], [0, 1, math.nan]])
    for weight in (None, torch.tensor([1.0, 2.0, 0.5])):
        assert torch.equal(loss(logits, targets, weight), function(logits, targets, weight, **options))
    assert loss.shares is shares


def test_numbers_of_numpy_are_parameters_too(pairs):
    margin = np.linspace(0.1, 0.3, 3)[1]
    scores = pairs.scores.clone().requires_grad_()
    fresh = PairScores(scores, pairs.image_of_text, pairs.not_negative)
    torch.testing.assert_close(RankingLoss(margin)(fresh), RankingLoss(0.2)(fresh))
    torch.testing.assert_close(InfoNCELoss(margin)(fresh), InfoNCELoss(0.2)(fresh))
    torch.testing.assert_close(SigmoidLoss(margin, -margin)(fresh), SigmoidLoss(0.2, -0.2)(fresh))


@pytest.mark.parametrize(
    ("weight", "weights"), [(1, (1.0, 1.0)), (0.0, (0.0, 0.0)), ([2, 0.5], (2.0, 0.5)), (np.ones(2), (1.0, 1.0))]
)
def test_the_instance_loss_has_a_weight_for_images_and_one_for_texts(weight, weights):
    loss = InstanceLoss(weight)
    validate_params(loss)
    assert loss.weights == weights


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_the_classifier_takes_the_mean_instance_loss_of_what_dropout_leaves(temperature):
    torch.manual_seed(0)
    classifier = InstanceClassifier(4, 7, temperature=temperature, dropout=0.5)
    features, instance, weight = torch.randn(6, 4), torch.arange(6), torch.rand(6)
    torch.manual_seed(1)
    loss = classifier(features, instance, weight)
    torch.manual_seed(1)
    kept = nn.functional.dropout(features, 0.5)
    rows = classifier.weight
    if temperature is not None:
        kept, rows = nn.functional.normalize(kept, dim=1) / temperature, nn.functional.normalize(rows, dim=1)
    torch.testing.assert_close(loss, (instance_loss(kept, instance, rows) * weight).mean())
    classifier.eval()
    torch.testing.assert_close(classifier(features, instance), classifier(features, instance, torch.ones(6)))
