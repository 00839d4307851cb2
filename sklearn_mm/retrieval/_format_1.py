"""A ranker as format 1 saved it: the parameters of its losses were its own."""

from typing import Any

from sklearn_mm.losses import InfoNCELoss, InstanceLoss, PairLoss, RankingLoss

__all__ = ["loss_parameters_as_objects"]


def loss_parameters_as_objects(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state with the losses as objects that hold their parameters."""
    kept = dict(state)
    temperature, trainable = kept.pop("temperature"), kept.pop("train_temperature")
    margin, negatives, side = (kept.pop(name) for name in ("margin", "negatives", "negative_side"))
    # Only a fitted ranker has the second.
    pool_size, last_temperature = kept.pop("text_pool_size"), kept.pop("temperature_", temperature)

    def loss(temperature: float) -> PairLoss:
        # InfoNCE among the hardest negatives alone is no more; a model that was trained so answers as ever
        if state["loss"] == "infonce":
            return InfoNCELoss(temperature, trainable, side)
        return RankingLoss(margin, negatives=negatives, side=side, pool_size=pool_size)

    kept["loss"] = loss(temperature)
    kept["instance_loss"] = _instance_loss(kept)
    if "temperature_" in state:
        kept["loss_"] = loss(last_temperature if trainable else temperature)
    return kept


def _instance_loss(kept: dict[str, Any]) -> InstanceLoss | None:
    """Take the parameters of the instance loss out of a state; None where they were of no effect."""
    weight, temperature, dropout = (kept.pop(f"instance_{name}") for name in ("weight", "temperature", "dropout"))
    n_epochs, rate, relu = (kept.pop(name) for name in ("pretrain_epochs", "pretrain_learning_rate", "final_relu"))
    loss = InstanceLoss(
        weight,
        temperature=temperature,
        dropout=dropout,
        pretrain_epochs=n_epochs,
        pretrain_learning_rate=rate,
        relu=relu,
    )
    return loss if any(loss.weights) or n_epochs or relu else None
