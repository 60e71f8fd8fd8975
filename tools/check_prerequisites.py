"""Check that this machine can build mpipc; where it cannot, name the package to install.

Run by the interpreter to build with. Uses no syntax newer than Python 3.5, so that an old one
reports its own age rather than a SyntaxError.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile

OLDEST = (3, 10)
MAJOR_MINOR = "{}.{}".format(*sys.version_info[:2])


def missing(what, debian, fedora):
    # type: (str, str, str) -> str
    """The one line that names what is missing and what brings it."""
    return "missing: {} (Debian, Ubuntu: apt install {}; Fedora: dnf install {})".format(
        what, debian, fedora
    )


def compiles(compiler, source, *options):
    # type: (list[str], str, str) -> bool
    """Whether the compiler accepts the source."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "probe.c")
        with open(path, "w") as file:
            file.write(source)
        command = [*compiler, *options, "-c", path, "-o", os.path.join(folder, "probe.o")]
        probe = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return probe.returncode == 0


def problem():
    # type: () -> str | None
    """The first thing that is missing, or None."""
    if sys.version_info < OLDEST:
        return missing(
            "Python {}.{} or newer; {} is Python {}".format(*OLDEST, sys.executable, MAJOR_MINOR),
            "python3 (or set PYTHON=/path/to/a/newer/python3)",
            "python3",
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return missing(
            "the venv module of Python {}".format(MAJOR_MINOR),
            "python{}-venv".format(MAJOR_MINOR),
            "python3-libs",
        )

    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if shutil.which(compiler[0]) is None:
        return missing("the C compiler {!r}".format(compiler[0]), "gcc", "gcc")
    if not compiles(compiler, "#include <stdio.h>\n#include <linux/futex.h>\n"):
        return missing("the C library's and the kernel's headers", "libc6-dev", "glibc-devel")
    headers = sysconfig.get_path("include")
    if not compiles(compiler, "#include <Python.h>\n", "-I" + headers):
        return missing(
            "Python.h, the headers of Python {}".format(MAJOR_MINOR),
            "python{}-dev".format(MAJOR_MINOR),
            "python3-devel",
        )
    return None


if __name__ == "__main__":
    sys.exit(problem())
