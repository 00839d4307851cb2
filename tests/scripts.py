"""Scripts, run in the process of the tests: in another one all libraries would be imported anew, which takes longer."""

import contextlib
import io
import os
import runpy
import sys
import warnings
from pathlib import Path
from typing import NamedTuple
from unittest import mock


class Run(NamedTuple):
    """What a process of its own would have left."""

    returncode: int
    stdout: str
    stderr: str


def run_script(script, *arguments, cwd="."):
    """Run a script as its command line would, with no more warnings than there, and return what is left of it."""
    output, errors, status = io.StringIO(), io.StringIO(), 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", [str(script), *map(str, arguments)]))
        stack.enter_context(mock.patch.object(sys, "path", [str(Path(script).parent), *sys.path]))
        stack.enter_context(mock.patch.dict(os.environ))
        stack.enter_context(contextlib.chdir(cwd))
        stack.enter_context(contextlib.redirect_stdout(output))
        stack.enter_context(contextlib.redirect_stderr(errors))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            status = int(end.code or 0)
    return Run(status, output.getvalue(), errors.getvalue())
