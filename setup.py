"""The compiled part of the build; everything else stands in pyproject.toml."""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

core = Extension(
    "mpipc._core",
    sources=["mpipc/_core.pyx"],
    include_dirs=["mpipc"],
    depends=sorted(glob("mpipc/_native/*")),
    # Shared memory is read under several struct types; strict aliasing forbids that.
    extra_compile_args=["-std=gnu11", "-O3", "-g0", "-fno-strict-aliasing", "-Wall"],
)

setup(ext_modules=cythonize([core], build_dir="build", language_level=3))
