"""Settings of `fit` in a TOML file."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sklearn_mm.cli._errors import CommandError
from sklearn_mm.cli._files import new_file

__all__ = ["parse_parameters", "read_config", "write_config"]

PARAMETERS = "parameters"  # the table of the parameters of the model itself


def read_config(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Take what a TOML file says for what the command line leaves out; a callback of an option."""
    if value is None:
        return
    try:
        config = tomllib.loads(Path(value).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CommandError(f"{value}: there is no such file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{value} is no valid TOML: {error}") from error
    known = {parameter.name for parameter in context.command.params if parameter.name} | {PARAMETERS}
    for name in config:
        if name not in known:
            raise CommandError(f"{value}: unknown setting {name!r}{_near(name, known)}")
    parameters = config.pop(PARAMETERS, {})
    if not isinstance(parameters, dict):
        raise CommandError(f"{value}: [{PARAMETERS}] is a table of names and values")
    context.meta[PARAMETERS] = parameters
    context.default_map = {**(context.default_map or {}), **config}


def write_config(settings: Mapping[str, Any], parameters: Mapping[str, Any], path: Path) -> None:
    """Write settings, those that are None left out, so that `read_config` reads them."""
    lines = ["# fit --config reads this file; what stands on the command line counts first"]
    lines += [f"{name} = {_toml(value)}" for name, value in settings.items() if value is not None]
    if parameters:
        lines += ["", f"[{PARAMETERS}]", *(f"{_toml(name)} = {_toml(value)}" for name, value in parameters.items())]
    with new_file(path) as made:
        made.write_text("\n".join(lines) + "\n", encoding="utf-8")


def parse_parameters(given: tuple[str, ...]) -> dict[str, Any]:
    """Read NAME=VALUE, where the value is one of TOML, or else the text as it stands."""
    parameters = {}
    for entry in given:
        name, equals, text = entry.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"expected NAME=VALUE, got {entry!r}")
        try:
            parameters[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, KeyError):
            parameters[name.strip()] = text
    return parameters


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (int, float)):
        return repr(value)
    # A string of JSON is one of TOML, but that TOML wants DEL escaped too.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _near(name: str, known: set[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"
