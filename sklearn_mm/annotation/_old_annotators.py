"""Annotators as earlier versions stored them."""

from typing import Any

from sklearn_mm.annotation._count_predictor import LabelCountPredictor
from sklearn_mm.annotation._model import Scoring
from sklearn_mm.losses import AsymmetricLoss

__all__ = ["annotator_from_format"]


def annotator_from_format(state: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the state of an annotator of an older format as it is today."""
    state = _from_format_1(state) if number == 1 else {"label_separator": None, **state}
    if "members" not in state:  # models saved before there were any
        state |= {"members": None, "bank_size": 20_000}
        if "_scoring" in state:
            state["_members"] = None
    state = {"name_encoder": None, **state}  # models saved before there was one
    if "_scoring" in state:  # models saved before there were corrections
        state = {"_sample": None, "_corrections": None, **state}
    return state


def _from_format_1(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state with the parameters and attributes of format 1 with those of format 2."""
    state = {"label_separator": None, **state}
    asymmetric = {name: state.pop(name) for name in ("gamma_negative", "gamma_positive", "margin")}
    if state["loss"] == "asymmetric":
        state["loss"] = AsymmetricLoss(**asymmetric)
    counts = LabelCountPredictor(
        state.pop("count_loss"),
        hidden_layer_sizes=state.pop("count_hidden_layer_sizes"),
        rounding=state.pop("count_rounding"),
        joint=state.pop("count_training") == "joint",
    )
    state["label_count"] = state.pop("n_labels")
    if state["label_count"] == "predict":
        state["label_count"] = counts
    for name in ("drop_unlabeled", "clip_norm"):  # rows are dropped by whoever has them, and the norm is fixed
        del state[name]
    if "_form" in state:
        single, shares = state["_form"].kind == "single", state["loss"] == "softmax"
        state["_scoring"] = Scoring(
            "single" if single else "shared" if shares else "independent",
            state.pop("_counted"),
            state.pop("_mean_count"),
            state.pop("_never"),
            state.pop("_calibration"),
        )
        state["_rules"] = state.pop("_decisions")
    return state
