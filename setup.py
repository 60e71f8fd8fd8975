"""What pyproject.toml cannot say: the extensions, and packages found in two folders."""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

# For the tests of deaths and of failing system calls: _native/killpoints.h, _native/calls.h.
FOR_TESTS = ("MPIPC_KILL_POINTS", "MPIPC_FAULTS")

# What `make sanitize` asks for: "address,undefined", or another list that the compiler knows.
SANITIZER = os.environ.get("MPIPC_SANITIZER")
SANITIZED = [
    *(f"-fsanitize={SANITIZER}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
    *("-O1", "-g1"),
]


def extension(name: str) -> Extension:
    for_tests = [(name, "1") for name in FOR_TESTS if os.environ.get(name)]
    return Extension(
        f"mpipc.{name}",
        sources=[f"mpipc/{name}.pyx"],
        include_dirs=["mpipc"],
        depends=sorted(glob("mpipc/_native/*")),
        # Shared memory is read under several struct types; strict aliasing forbids that.
        extra_compile_args=["-std=gnu11", "-O3", "-g0", "-fno-strict-aliasing", "-Wall"]
        + (["-O1"] if for_tests else [])
        + (SANITIZED if SANITIZER else []),
        extra_link_args=SANITIZED if SANITIZER else [],
        define_macros=for_tests,
    )


def for_interleavings(name: str) -> Extension:
    here = "tests/interleavings"
    made = extension(name)
    made.sources = [f"{here}/{name}.pyx"]
    made.include_dirs.append(here)
    made.depends += sorted(glob(f"{here}/*.[hp]*"))
    made.extra_compile_args.append("-O1")
    return made


extensions = [extension("_core"), extension("_kernel")]

# Builds for tests have the core once more, in another surrounding; see tests/interleavings.
if os.environ.get("MPIPC_INTERLEAVE"):
    extensions = [for_interleavings("_interleavings")]
    extensions[0].define_macros.append(("MPIPC_INTERLEAVE", "1"))
elif os.environ.get("MPIPC_STRESS"):
    extensions = [for_interleavings("_stress")]
    extensions[0].extra_compile_args += ["-g", "-fsanitize=thread"]
    extensions[0].extra_link_args = ["-fsanitize=thread"]

setup(
    packages=[*find_packages(include=["mpipc", "mpipc.*"]), "mpipc.examples"],
    ext_modules=cythonize(extensions, build_dir="build", language_level=3),
)
