"""Low-rank adapters: a few weights beside those that stay as they came."""

from dataclasses import dataclass

from sklearn_mm._device import forked_rng
from sklearn_mm.nn.pretrained._files import import_optional
from sklearn_mm.nn.pretrained._model import PretrainedModule

__all__ = ["LoraSettings", "add_lora", "is_adapter"]


@dataclass(frozen=True)
class LoraSettings:
    """How adapters look.

    Attributes
    ----------
    rank : int
        Of the product that is added to a weight.
    alpha : float
        It is added ``alpha / rank`` times.
    dropout : float
        Share of an adapter's inputs dropped in training.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0


def add_lora(module: PretrainedModule, settings: LoraSettings, random_state: object = 0) -> None:
    """Put adapters into a module, in place; they alone want a gradient from then on, and change nothing at first.

    Parameters
    ----------
    module : PretrainedModule
        Adapters go beside its `lora_targets`.
    settings : LoraSettings
    random_state : int, RandomState or None

    Raises
    ------
    ImportError
        peft is not installed.
    ValueError
        The module has no layer that they may enter.
    """
    peft = import_optional("peft")
    if not module.lora_targets:
        raise ValueError("this model names no linear layer that LoRA may enter; train it as a whole, or not at all")
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(module.lora_targets),
        bias="none",
    )
    with forked_rng(random_state):  # type: ignore[arg-type]  # what check_random_state takes
        peft.inject_adapter_in_model(config, module)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(is_adapter(name))


def is_adapter(name: str) -> bool:
    """Return whether a parameter of this name is one of an adapter."""
    return ".lora_" in name
