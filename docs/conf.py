"""How sphinx builds the documentation: offline, and with every warning an error."""

import re

import click
from docutils import nodes
from docutils.parsers.rst import Directive

from sklearn_mm import __version__
from sklearn_mm.cli._app import app

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
templates_path = ["_templates"]
default_role = "autolink"  # a link where there is something to link to: `k` is no object
html_theme = "pydata_sphinx_theme"
html_title = f"sklearn_mm {version}"
html_show_sourcelink = False

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say more than the annotations
numpydoc_show_class_members = False  # autodoc lists the methods
autodoc_default_options = {
    # scikit-learn adds these to every estimator, and documents them
    "exclude-members": "get_metadata_routing, set_output, "
    + ", ".join(f"set_{name}_request" for name in ("fit", "partial_fit", "predict", "score", "transform")),
}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"[/\\]plot_",
    "ignore_pattern": r"^(?!(.*[/\\])?plot_)",  # the longer scripts are run by hand
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
}

nitpick_ignore = [
    ("py:obj", "sklearn_mm.nn"),  # not public: named for those who add a module
]
nitpick_ignore_regex = [
    # parameters that the base of encoders has values for: named in the text, and documented where they are taken
    ("py:obj", "batch_size|early_stopping|n_iter_no_change|n_jobs|random_state"),
    # no inventory of other projects is fetched, so their names have nothing to point to
    ("py:.*", r"(sklearn|numpy|scipy|torch|torchvision|pandas|joblib|PIL|matplotlib|unittest)\..*"),
]


def escape_fitted_names(app, what, name, obj, options, lines):
    """Keep ``(n_samples, n_features_out_)`` in a type from being read as a link."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[number] = re.sub(r"(?<=\w)_(?=,?\)|\")", r"\_", line)


class HelpOfVerb(Directive):
    """The help of a verb of the command line, as ``--help`` writes it."""

    required_arguments = 1

    def run(self):
        verb = self.arguments[0]
        group = click.Context(app, info_name="sklearn-mm")
        text = click.Context(app.commands[verb], info_name=verb, parent=group, max_content_width=100).get_help()
        return [nodes.literal_block(text, text, language="text")]


def setup(app):
    app.add_directive("help-of-verb", HelpOfVerb)
    app.connect("autodoc-process-docstring", escape_fitted_names, priority=100)  # before numpydoc
