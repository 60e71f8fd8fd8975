"""What pyproject.toml cannot say: the extensions, and packages found in two folders."""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup


def extension(name: str) -> Extension:
    return Extension(
        f"mpipc.{name}",
        sources=[f"mpipc/{name}.pyx"],
        include_dirs=["mpipc"],
        depends=sorted(glob("mpipc/_native/*")),
        # Shared memory is read under several struct types; strict aliasing forbids that.
        extra_compile_args=["-std=gnu11", "-O3", "-g0", "-fno-strict-aliasing", "-Wall"],
        # For the tests of deaths; see _native/killpoints.h.
        define_macros=[("MPIPC_KILL_POINTS", "1")] if os.environ.get("MPIPC_KILL_POINTS") else [],
    )


extensions = [extension("_core"), extension("_kernel")]

setup(
    packages=[*find_packages(include=["mpipc", "mpipc.*"]), "mpipc.examples"],
    ext_modules=cythonize(extensions, build_dir="build", language_level=3),
)
