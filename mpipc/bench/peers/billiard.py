"""billiard: Celery's multiprocessing."""

from __future__ import annotations

from billiard import get_context as context

__all__ = ["context"]
