"""A run as JSON: every sample, and what it was taken on."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mpipc.cli.machine import Machine

from .model import Sample


@dataclass
class Series:
    """The samples of one side in one scenario."""

    count: int = 0
    # Seconds per operation.
    samples: list[float] = field(default_factory=list)
    # Of round trips only.
    p99: list[float] = field(default_factory=list)
    # Why there are no more of them.
    error: str = ""

    def add(self, sample: Sample) -> None:
        """Keep a sample."""
        self.samples.append(sample.seconds)
        if sample.p99 is not None:
            self.p99.append(sample.p99)


@dataclass
class Result:
    """A scenario of a run."""

    scenario: str
    title: str
    sides: dict[str, Series]


@dataclass
class Run:
    """Everything that one run found."""

    start_method: str
    rounds: int
    seconds_per_sample: float
    # The peers that took part, with their versions; and why others did not.
    versions: dict[str, str]
    absent: dict[str, str]
    date: str = ""
    commit: str | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)

    @classmethod
    def begin(cls, **plan: Any) -> Run:
        """A run that begins now, here."""
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(**plan, date=date, commit=commit(), machine=asdict(Machine.current()))

    def save(self, file: Path) -> None:
        """Write all of it."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, file: Path) -> Run:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file has something else.
        """
        try:
            data = json.loads(file.read_text())
            for result in data["results"]:
                result["sides"] = {
                    name: Series(**series) for name, series in result["sides"].items()
                }
            data["results"] = [Result(**result) for result in data["results"]]
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is no record of a run: {error!r}") from None


def commit() -> str | None:
    """The commit that is measured, with a mark when files differ from it; None if installed."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    try:
        # An installed package may lie inside some other repository.
        git("ls-files", "--error-unmatch", __file__)
        return git("describe", "--always", "--abbrev=12", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return None
