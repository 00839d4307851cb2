"""How sphinx builds the documentation: offline, and with every warning an error."""

from sklearn_mm import __version__

project = "sklearn_mm"
author = "the sklearn_mm developers"
copyright = f"2026, {author}"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
default_role = "py:obj"
html_theme = "pydata_sphinx_theme"
html_title = f"sklearn_mm {version}"
html_show_sourcelink = False

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say more than the annotations
numpydoc_show_class_members = False  # autodoc lists the methods
autodoc_default_options = {
    "members": True,
    # scikit-learn adds these to every estimator, and documents them
    "exclude-members": ", ".join(
        f"set_{name}_request" for name in ("fit", "partial_fit", "predict", "score", "transform")
    ),
}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"[/\\]plot_",
    "ignore_pattern": r"[/\\](?!plot_)\w+\.py$",  # the longer scripts are run by hand
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
}

# No inventory of other projects is fetched, so names of theirs have nothing to point to.
nitpick_ignore_regex = [
    ("py:.*", r"(sklearn|numpy|scipy|torch|torchvision|pandas|joblib|PIL|matplotlib)\..*"),
]
