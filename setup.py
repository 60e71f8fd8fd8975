"""What pyproject.toml cannot say: the extension, and packages found in two folders."""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

core = Extension(
    "mpipc._core",
    sources=["mpipc/_core.pyx"],
    include_dirs=["mpipc"],
    depends=sorted(glob("mpipc/_native/*")),
    # Shared memory is read under several struct types; strict aliasing forbids that.
    extra_compile_args=["-std=gnu11", "-O3", "-g0", "-fno-strict-aliasing", "-Wall"],
)

setup(
    packages=[*find_packages(include=["mpipc", "mpipc.*"]), "mpipc.examples"],
    ext_modules=cythonize([core], build_dir="build", language_level=3),
)
