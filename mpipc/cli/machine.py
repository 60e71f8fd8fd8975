"""What figures were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def mpipc_version() -> str:
    """The installed version of mpipc."""
    try:
        return version("mpipc")
    except PackageNotFoundError:
        return "unknown (not installed)"


def cpu_model() -> str:
    """The processor as the kernel names it; the architecture where it has no name."""
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


@dataclass(frozen=True)
class Machine:
    """The machine and the software that figures depend on."""

    cpu: str
    architecture: str
    cores: int
    memory_gib: float
    kernel: str
    libc: str
    python: str
    mpipc: str

    @classmethod
    def current(cls) -> Machine:
        """Describe this machine, as this process may use it."""
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls(
            cpu=cpu_model(),
            architecture=platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=round(memory / 2**30, 1),
            # Without what a distribution or a local build appends.
            kernel=platform.release().partition("-")[0],
            libc=" ".join(platform.libc_ver()),
            python=f"{platform.python_implementation()} {platform.python_version()}",
            mpipc=mpipc_version(),
        )

    def __str__(self) -> str:
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return (
            f"{self.cpu}, {cores}, {self.memory_gib} GiB; Linux {self.kernel}; "
            f"{self.python}; mpipc {self.mpipc}"
        )
