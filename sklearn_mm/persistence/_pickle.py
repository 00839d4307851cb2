"""What a pickled estimator carries: our version, and a state that opens on any machine."""

import copy
import warnings
from pathlib import Path, PurePath
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from sklearn_mm._version import __version__
from sklearn_mm.exceptions import VersionMismatchWarning
from sklearn_mm.registry import FORMAT_KEY, FORMAT_VERSION, to_current

__all__ = ["PickleStateMixin", "torch_version", "warn_of_versions"]

_OF_THE_PROCESS = ("verbose", "cache")
_OURS, _TORCHS = "_sklearn_mm_version", "_torch_version"


class PickleStateMixin:
    """Mixin that makes estimators with torch inside fit for `pickle` and `joblib`.

    The pickled state carries the versions of this library and of torch, and opening it under others warns. It carries
    the number of its format too: a class whose parameters or attributes have changed since says in `_from_format` how.
    Torch modules and tensors travel as CPU copies, so that a model trained on a GPU opens without one; paths travel as
    str, as a path of one system is none on another; what `_not_pickled` lists stays behind.

    What is fitted is opened to be used, perhaps by somebody else: it shows no progress (`verbose` is 0) until it is
    told to, and a `cache` whose folder is not there becomes None instead of a new folder. Copies keep both.

    Stands between scikit-learn's mixins and `BaseEstimator` in the list of bases.

    Examples
    --------
    >>> import pickle
    >>> import torch
    >>> from sklearn.base import BaseEstimator
    >>> from sklearn_mm.persistence import PickleStateMixin
    >>> class Halver(PickleStateMixin, BaseEstimator):
    ...     _not_pickled = ("_optimizer",)
    >>> halver = Halver()
    >>> halver.factor_, halver._optimizer = torch.tensor(0.5), object()
    >>> sorted(halver.__getstate__())
    ['_sklearn_mm_format', '_sklearn_mm_version', '_torch_version', 'factor_']
    """

    _not_pickled: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle."""
        state = cast("dict[str, Any] | None", super().__getstate__()) or {}
        kept = {name: _portable(value) for name, value in state.items() if name not in self._not_pickled}
        return {**kept, FORMAT_KEY: FORMAT_VERSION, _OURS: __version__, _TORCHS: torch_version()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a pickled state, brought to today's format, and warn if other versions made it."""
        kept = dict(state)
        warn_of_versions(type(self).__name__, kept.pop(_OURS, None), kept.pop(_TORCHS, None))
        kept = to_current(type(self), kept)
        if any(name.endswith("_") and not name.startswith("_") for name in kept):
            kept = _at_home_here(kept)
        parent = super()
        # BaseEstimator has one; an estimator of another base may not.
        if hasattr(parent, "__setstate__"):
            parent.__setstate__(kept)
        else:
            self.__dict__.update(kept)

    def __copy__(self) -> Self:
        """Copy as a pickle would, but keep what is this process's own."""
        return self._copy(self.__getstate__())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy as a pickle would, but keep what is this process's own."""
        return self._copy(copy.deepcopy(self.__getstate__(), memo))

    def _copy(self, state: dict[str, Any]) -> Self:
        made = type(self).__new__(type(self))
        made.__setstate__(state)
        made.__dict__.update({name: self.__dict__[name] for name in _OF_THE_PROCESS if name in self.__dict__})
        return made

    @classmethod
    def _from_format(cls, state: dict[str, Any], number: int) -> dict[str, Any]:
        """Return a state of format `number`, today's or an older one, as it is today.

        Pickles, folders and copies all come through here. A class that changes the state calls its parent's too.
        """
        return state


def torch_version() -> str:
    """Return torch's version as "major.minor"."""
    # Without the patch release and the build ("2.4.1+cu121"), which change no answer that would be worth a warning.
    return ".".join(torch.__version__.split(".")[:2])


def warn_of_versions(what: str, ours: str | None, torchs: str | None) -> None:
    """Warn if `what` was saved under other versions of this library or of torch than those that run."""
    pairs = (("sklearn_mm", ours, __version__), ("torch", torchs, torch_version()))
    differing = [(name, was or "of unknown version", now) for name, was, now in pairs if was != now]
    if differing:
        was = " and ".join(f"{name} {old}" for name, old, _ in differing)
        now = " and ".join(f"{name} {new}" for name, _, new in differing)
        warnings.warn(
            f"{what} was saved under {was} and is being opened under {now}; it may fail or answer "
            "differently. Open it under the versions that saved it, or fit it again under these.",
            VersionMismatchWarning,
            stacklevel=3,
        )


def _at_home_here(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a fitted estimator without what belonged to the process that has fitted it."""
    changed: dict[str, Any] = {}
    if state.get("verbose"):
        changed["verbose"] = type(state["verbose"])(0)  # False stays one
    cache = state.get("cache")
    if isinstance(cache, str) and not Path(cache).expanduser().is_dir():
        changed["cache"] = None
    return {**state, **changed}


def _portable(value: Any) -> Any:
    """Return `value` with its tensors on the CPU, and paths as str; what is so already is not copied."""
    if isinstance(value, PurePath):
        # with slashes, which every system reads; and a file of this name is not the word
        return "./default" if str(value) == "default" else value.as_posix()
    if isinstance(value, Tensor):
        return value if _is_on_cpu(value) else value.cpu()
    if isinstance(value, nn.Module):
        return _module_on_cpu(value)
    # By type: a subclass may have another constructor, and is left as it is.
    if type(value) is dict:
        return {key: _portable(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_portable(item) for item in value)
    return value


def _module_on_cpu(module: nn.Module) -> nn.Module:
    tensors = [*module.parameters(), *module.buffers()]
    if all(map(_is_on_cpu, tensors)):
        return module
    # Seen as copied already, the tensors are not copied on their device first, and shared ones stay shared.
    moved: dict[int, Any] = {}
    for tensor in tensors:
        on_cpu = tensor.detach().cpu()
        moved[id(tensor)] = nn.Parameter(on_cpu, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else on_cpu
    return copy.deepcopy(module, moved)


def _is_on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"
