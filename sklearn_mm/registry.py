"""Names under which classes are saved: they stay when a class moves to another file, or gets another name there.

Later versions open what this one saves, and their files are others. So neither a folder of `sklearn_mm.persistence` nor
a pickle names a file of this library, except this one.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

__all__ = ["FORMAT_KEY", "FORMAT_VERSION", "FieldsAlone", "find", "name_of", "restore", "stored_as", "to_current"]

FORMAT_VERSION = 2  # of folders and of states; states without a number are of format 1
FORMAT_KEY = "_sklearn_mm_format"

_CLASSES: dict[str, type] = {}  # grows only by `stored_as`, while packages are imported
_NAME = "_stored_as"

AnyClass = TypeVar("AnyClass", bound=type[Any])


class FieldsAlone:
    """A dataclass whose state is its fields: what is made of them, and kept, is not stored."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


def stored_as(name: str) -> Callable[[AnyClass], AnyClass]:
    """Give a class the name under which it is saved.

    Parameters
    ----------
    name : str
        "<package>.<Name>", where importing ``sklearn_mm.<package>`` imports the class. Once released it stays.

    Returns
    -------
    callable
        A class decorator. It goes above `dataclass`, which may make another class.

    Raises
    ------
    ValueError
        Another class has the name.

    Notes
    -----
    Pickles and copies of the class itself call `restore` with the name. Subclasses are pickled as ever, by the name of
    their own file. The state is what ``__getstate__`` gives, for both.

    A dataclass whose fields have changed since an older format has a class method
    ``_from_format(cls, fields, number)``: from its fields in format `number`, today's or an older one, it makes
    today's. Folders and pickles both come through it; the decorator lets its pickled states carry the number.
    (For estimators `PickleStateMixin` does so.)

    Examples
    --------
    >>> import pickle
    >>> from sklearn_mm.texts import TokenRows  # decorated with @stored_as("texts.TokenRows")
    >>> b"texts.TokenRows" in pickle.dumps(TokenRows([], [0])), b"_token_rows" in pickle.dumps(TokenRows([], [0]))
    (True, False)
    """

    def register(cls: AnyClass) -> AnyClass:
        _register(name, cls)
        return cls

    return register


def _register(name: str, cls: Any) -> None:
    other = _CLASSES.setdefault(name, cls)
    if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"{other.__module__}.{other.__qualname__} is stored as {name!r} already")
    _CLASSES[name] = cls  # a module that is loaded again makes its classes anew

    def reduce(self: Any, protocol: int) -> Any:
        if type(self) is not cls:
            return super(cls, self).__reduce_ex__(protocol)
        _, (_, *args), *state = super(cls, self).__reduce_ex__(max(protocol, 2))  # 0 and 1 take another form
        return (restore, (name, *args), *state)

    setattr(cls, _NAME, name)
    cls.__reduce_ex__ = reduce
    if hasattr(cls, "_from_format") and not hasattr(cls, "__setstate__") and not issubclass(cls, tuple):
        _carry_format(cls)


def _carry_format(cls: Any) -> None:
    """Let the states of a record carry the format, and go through its `_from_format` when they are opened."""
    own_state = cls.__getstate__

    def get_state(self: Any) -> dict[str, Any]:
        return {**own_state(self), FORMAT_KEY: FORMAT_VERSION}

    def set_state(self: Any, state: dict[str, Any]) -> None:
        self.__dict__.update(to_current(type(self), state))  # of a frozen dataclass too

    cls.__getstate__, cls.__setstate__ = get_state, set_state


def restore(name: str, *args: Any) -> Any:
    """Make an instance of a class, without its state: this is what pickles call.

    Raises
    ------
    ValueError
        There is no class of that name.
    """
    cls = find(name)
    return cls.__new__(cls, *args)


def find(name: str) -> type[Any]:
    """Find the class that is stored under a name.

    Raises
    ------
    ValueError
        There is none.
    """
    if name not in _CLASSES:
        package = name.partition(".")[0]
        try:
            importlib.import_module(f"sklearn_mm.{package}")
        except ModuleNotFoundError as error:
            if error.name != f"sklearn_mm.{package}":
                raise  # a dependency is missing
    if name not in _CLASSES:
        raise ValueError(f"this sklearn_mm has no class stored as {name!r}; was it saved by a newer one?")
    return _CLASSES[name]


def name_of(cls: type) -> str | None:
    """Return the name under which a class is stored; None, if it has none of its own."""
    return vars(cls).get(_NAME)


def to_current(cls: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Take the number of the format out of a state, and bring an older one to today's.

    Raises
    ------
    ValueError
        The state is of a later format.
    """
    kept = dict(state)
    number = kept.pop(FORMAT_KEY, 1)
    if number > FORMAT_VERSION:
        raise ValueError(
            f"this {cls.__name__} is of format {number}, this version of sklearn_mm reads up to {FORMAT_VERSION}; "
            "open it with the sklearn_mm that saved it"
        )
    translated: dict[str, Any] = cls._from_format(kept, number)
    return translated
