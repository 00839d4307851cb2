"""Where the command line begins."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of ``sklearn-mm``, and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        What stands behind the name of the program; by default what this process was started with.

    Returns
    -------
    int
        0: done. 1: something that was given is not as it has to be; the message says what. 2: the command line itself
        is wrong. 70: an error of this library. 130: interrupted.

    Notes
    -----
    It needs the extra ``cli``. Help, usage and `info` load neither torch nor scikit-learn.

    Examples
    --------
    >>> from sklearn_mm.cli import main
    >>> main(["--version"])
    sklearn-mm ...
    0
    """
    try:
        from sklearn_mm.cli._run import run
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(f"error: the command line needs {error.name}: pip install 'sklearn-mm[cli]'\n")
        return 1
    return run(sys.argv[1:] if arguments is None else list(arguments))
