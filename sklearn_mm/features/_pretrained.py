"""What encoders around a pretrained model share: opening it, what of it learns, and what of it travels."""

from threading import Lock
from typing import Any

from torch import Tensor

from sklearn_mm._params import StrOptions, a_path, positive_int, positive_real, validate_params
from sklearn_mm.exceptions import WeightsError
from sklearn_mm.nn.pretrained import LoraSettings, OpenedModel, PretrainedModule, add_lora, is_adapter, rebuild
from sklearn_mm.registry import name_of
from sklearn_mm.towers import TrainableEncoder

__all__ = ["PretrainedEncoderBase"]

# On the learning rate of whoever trains it, which is 1e-3 in a ranker.
_FACTORS = {"none": 1.0, "lora": 0.2, "all": 0.02}
_DUAL_FACTOR = 0.01  # of all weights of a dual encoder: above 1e-5 what aligns its sides is soon forgotten


class PretrainedEncoderBase(TrainableEncoder):
    """An encoder around a model that came pretrained.

    A subclass has the parameters below, and says in `_open_pretrained` how its model is opened. What is trained travels
    in pickles and saved folders: all weights under ``trainable="all"``, with what they are read by, the adapters under
    "lora". The rest is opened again from `model`, and has to be what it was.
    """

    _parameter_constraints: dict[str, Any] = {
        **TrainableEncoder._parameter_constraints,
        "model": [a_path],
        "trainable": [StrOptions({"none", "lora", "all"})],
        "lora_rank": [positive_int],
        "backbone_learning_rate": [positive_real, StrOptions({"auto"})],
        "local_files_only": ["boolean"],
        "revision": [str, None],
    }

    model: Any
    trainable: str
    lora_rank: int
    backbone_learning_rate: float | str
    local_files_only: bool
    revision: str | None

    # the model itself, which another machine opens anew; a lock is of one process
    _not_pickled = ("_opened", "_opening")

    def _open_pretrained(self) -> OpenedModel:
        """Open the model as the parameters say, with the weights that it came with."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its model is opened")

    @property
    def trains(self) -> bool:  # type: ignore[override]  # elsewhere a class attribute
        """Whether whoever holds the encoder trains it; with ``trainable="none"`` it is asked for its vectors once."""
        # Of a fitted one as it was fitted, whatever the parameter says now.
        return bool(getattr(self, "_learning", self.trainable) != "none")

    @property
    def module_(self) -> Any:
        """The network; opened where it is used first."""
        return self._model().module

    @property
    def n_features_out(self) -> int:
        """Width of the embedding."""
        return int(self.module_.width)

    def _begin(self, random_state: Any) -> None:
        """Open the model, and let those of its weights learn that `trainable` says."""
        opened = self._open_pretrained()
        self.identity_ = opened.identity
        self.trained_on_ = opened.trained_on
        self.logit_scale_, self.logit_bias_ = opened.logit_scale, opened.logit_bias
        self._learning, self._rank = self.trainable, int(self.lora_rank)
        self._let_learn(opened.module, random_state)
        self._opening = Lock()
        self._opened: OpenedModel | None = opened
        self._carried: dict[str, Any] = {}

    def _let_learn(self, module: PretrainedModule, random_state: Any = 0) -> None:
        if self._learning == "lora":
            add_lora(module, LoraSettings(self._rank, alpha=2.0 * self._rank), random_state)
        factor = self.backbone_learning_rate
        if isinstance(factor, str):
            is_dual = self.logit_scale_ is not None
            factor = _DUAL_FACTOR if is_dual and self._learning == "all" else _FACTORS[self._learning]
        module.learning_rate_factors = {"": float(factor)}
        _freeze(module, self._learning, False)

    def freeze_pretrained(self, frozen: bool) -> None:
        """Hold the model still, or let those of its weights learn that `trainable` says."""
        _freeze(self.module_, self._learning, frozen)

    def learn_as(self, asked: Any, random_state: Any = None) -> bool:
        """Let a model learn that held still, as `asked` says, with the heads that were trained on it.

        Raises
        ------
        ValueError
            It learnt in another way: what was trained is kept as adapters, or as a whole.
        """
        if not isinstance(asked, type(self)) or asked.trainable == self._learning:
            return False
        if self._learning != "none":
            raise ValueError(
                f"expected trainable={self._learning!r}, as this {type(self).__name__} was trained, got "
                f"{asked.trainable!r}: training goes on from 'none' to another, but from no other; set it back, or "
                "fit with warm_start=False"
            )
        validate_params(asked)
        module = self.module_  # first: one of a pickle is opened here, as it was fitted
        own = ("trainable", "lora_rank", "backbone_learning_rate")
        self.set_params(**{name: getattr(asked, name) for name in own})
        self._learning, self._rank = self.trainable, int(self.lora_rank)
        self._let_learn(module, random_state)
        return True

    # Opened when it is needed -----------------------------------------------------------------------------------------

    def _model(self) -> OpenedModel:
        """Return the model as it was fitted.

        Raises
        ------
        AttributeError
            The encoder is not fitted.
        WeightsError
            The model is not to be had here, or is another one.
        """
        if not hasattr(self, "identity_"):
            raise AttributeError(f"this {type(self).__name__} is not fitted")
        if self._opened is None:
            # The first calls on one that was opened from a pickle may come from many threads: one of them opens it.
            with self._opening:
                if self._opened is None:
                    self._opened = self._reopen()
        return self._opened

    def _reopen(self) -> OpenedModel:
        carried = self._carried
        if self._learning == "all":
            module = rebuild(carried["class"], carried["config"], carried["tensors"])
            opened = OpenedModel(module, carried["tokenizer"], carried["logit_scale"], carried["logit_bias"])
            self._let_learn(module)
            return opened
        try:
            opened = self._open_pretrained()
        except WeightsError as error:
            raise WeightsError(
                f"this {type(self).__name__} was saved without the weights of {str(self.model)!r}, which stayed as "
                f"they came, and they are not to be had here: {error}. Where they are elsewhere, say so by "
                "set_params(model=...)"
            ) from error
        if opened.identity != self.identity_:
            raise WeightsError(
                f"{str(self.model)!r} is not the model that this {type(self).__name__} was fitted with (its digest was "
                f"{self.identity_} and is {opened.identity}); bring the files of then back, or fit again"
            )
        self._let_learn(opened.module)
        if carried:
            opened.module.load_state_dict({**opened.module.state_dict(), **carried["tensors"]}, strict=True)
        return opened

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model out, but for what of it was trained."""
        state = super().__getstate__()
        if getattr(self, "_opened", None) is not None:
            state["_carried"] = self._to_carry()
        return state

    def _to_carry(self) -> dict[str, Any]:
        opened = self._model()
        tensors: dict[str, Tensor] = {name: value.cpu() for name, value in opened.module.state_dict().items()}
        if self._learning == "none":
            return {}
        if self._learning == "lora":
            return {"tensors": {name: value for name, value in tensors.items() if is_adapter(name)}}
        return {
            "tensors": tensors,
            "class": name_of(type(opened.module)),
            "config": opened.module.config,
            "tokenizer": opened.tokenizer,
            "logit_scale": opened.logit_scale,
            "logit_bias": opened.logit_bias,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what `__getstate__` left."""
        super().__setstate__(state)
        self._opened = None
        self._opening = Lock()


def _freeze(module: PretrainedModule, learning: str, frozen: bool) -> None:
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not frozen and (learning == "all" or (learning == "lora" and is_adapter(name))))
