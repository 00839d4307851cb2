"""Codecs of estimators, torch modules and this library's dataclasses."""

import copy
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import MetadataRequest
from torch import Tensor, nn

from sklearn_mm.persistence._classes import estimator_class, is_record, module_class, public_name, record_class
from sklearn_mm.persistence._codec import Codec, Reader, Writer, join
from sklearn_mm.persistence._format_1 import name_since_format_1

__all__ = ["OBJECT_CODECS"]

_REQUESTS = "_metadata_request"  # where scikit-learn keeps what set_fit_request and the like were told


# Estimators -----------------------------------------------------------------------------------------------------


def _encode_estimator(estimator: BaseEstimator, writer: Writer, where: str) -> dict[str, Any]:
    name = public_name(type(estimator))
    _check_class(estimator, name, estimator_class, where)
    # The state that a pickle would hold: what an estimator leaves out or brings to the CPU it says once, for both.
    state = dict(estimator.__getstate__())
    requests = state.pop(_REQUESTS, None)
    node = {"class": name, "state": {key: writer.encode(value, join(where, key)) for key, value in state.items()}}
    if requests is not None:
        # As plain values: the object itself is of no class that the format holds.
        told = {method: own.requests for method, own in vars(requests).items() if hasattr(own, "requests")}
        node["requests"] = writer.encode({method: own for method, own in told.items() if own}, where)
    return node


def _decode_estimator(node: dict[str, Any], reader: Reader, where: str) -> BaseEstimator:
    cls = estimator_class(_class_name(node, reader))
    state = {key: reader.decode(value, join(where, key)) for key, value in node["state"].items()}
    estimator = cls.__new__(cls)  # as pickle does, without __init__
    if "requests" in node:
        state[_REQUESTS] = MetadataRequest(owner=estimator)
        for method, own in node["requests"].items():
            for param, alias in own.items():
                getattr(state[_REQUESTS], method).add_request(param=param, alias=alias)
    estimator.__setstate__(state)
    return estimator


# Torch modules --------------------------------------------------------------------------------------------------


def _encode_module(module: nn.Module, writer: Writer, where: str) -> dict[str, Any]:
    name = public_name(type(module))
    _check_class(module, name, module_class, where)
    tensors = {}
    for key, tensor in module.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{where} has {key} in its state, which is no tensor")
        tensors[key] = writer.add_tensor(tensor, join(where, key))
    # requires_grad is in no state_dict.
    frozen = [key for key, parameter in module.named_parameters() if not parameter.requires_grad]
    return {
        "class": name,
        "config": writer.encode(getattr(module, "config", {}), join(where, "config")),
        "training": module.training,
        "frozen": frozen,
        "tensors": tensors,
    }


def _decode_module(node: dict[str, Any], reader: Reader, where: str) -> nn.Module:
    cls = module_class(_class_name(node, reader))
    config = reader.decode(node["config"], join(where, "config"))
    _check_config(config)
    state = {key: reader.tensor(name) for key, name in node["tensors"].items()}
    reader.reserve(sum(tensor.nbytes for tensor in state.values()))  # one of the file may stand in many places
    # On the meta device a network takes no memory, whatever the configuration says, nor the pictures that are followed
    # through it. One that it was built around is not to take part with its own memory.
    planned = {key: _on_meta(value) if isinstance(value, nn.Module) else value for key, value in config.items()}
    with torch.device("meta"):
        module = cls(**planned)
    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    if shapes != {key: tuple(tensor.shape) for key, tensor in state.items()}:
        differing = sorted(key for key in shapes.keys() | state.keys() if not _fits(key, shapes, state))
        raise ValueError(f"the tensors do not fit the network's configuration: {', '.join(differing[:3])}")
    if hasattr(module, "config"):
        module.config = config
    unsaved = {key for key, _ in module.named_buffers()} - state.keys()
    module.to_empty(device="cpu")  # as much as the file has, and buffers that a network of this name always has
    module.load_state_dict(state, strict=True)
    if unsaved:
        tower: Any = module  # a BackboneTower: no other network has any
        tower.restore_buffers(unsaved)
    for key in node["frozen"]:
        module.get_parameter(key).requires_grad_(False)
    # By `train`, as networks with frozen parts have their own, which leaves these in evaluation mode.
    return module.train(node["training"])


def _check_config(config: Any) -> None:
    """Refuse what a saved configuration never holds: weights from elsewhere, and what takes more memory than text."""
    if config.get("weights") is not None:
        raise ValueError("a saved network has its own weights, and takes none from elsewhere")
    waiting = list(config.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting.extend(value)
        elif value is not None and not isinstance(value, bool | int | float | str | nn.Module):
            raise ValueError(f"the configuration of a network holds no {type(value).__name__}")


def _on_meta(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to("meta")


def _fits(key: str, shapes: dict[str, tuple[int, ...]], state: dict[str, Tensor]) -> bool:
    return key in shapes and key in state and shapes[key] == tuple(state[key].shape)


# Dataclasses and named tuples -----------------------------------------------------------------------------------


def _encode_record(record: Any, writer: Writer, where: str) -> dict[str, Any]:
    name = public_name(type(record))
    _check_class(record, name, record_class, where)
    # Only what the constructor takes; the rest follows from it.
    names = [field.name for field in fields(record) if field.init] if is_dataclass(record) else record._fields
    values = {field: writer.encode(getattr(record, field), join(where, field)) for field in names}
    return {"class": name, "fields": values}


def _decode_record(node: dict[str, Any], reader: Reader, where: str) -> Any:
    cls = record_class(_class_name(node, reader))
    values = {field: reader.decode(value, join(where, field)) for field, value in node["fields"].items()}
    if hasattr(cls, "_from_format"):
        values = cls._from_format(values, reader.format_version)
    return cls(**values)


# Names ----------------------------------------------------------------------------------------------------------


def _class_name(node: dict[str, Any], reader: Reader) -> str:
    name: str = node["class"]
    return name_since_format_1(name) if reader.format_version == 1 else name


def _check_class(value: Any, name: str, find: Any, where: str) -> None:
    try:
        # Asked while saving: a model that would not open is worse than an error now.
        known = find(name) is type(value)
    except ValueError as error:
        raise TypeError(f"{where} cannot be named in the format: {error}") from error
    if not known:
        raise TypeError(f"{where} is of class {name}, which is not found under this name")


OBJECT_CODECS = (
    Codec(
        "$estimator",
        lambda value: isinstance(value, BaseEstimator) and not isinstance(value, type),
        _encode_estimator,
        _decode_estimator,
    ),
    Codec("$module", lambda value: isinstance(value, nn.Module), _encode_module, _decode_module),
    Codec("$record", lambda value: is_record(type(value)), _encode_record, _decode_record),
)
