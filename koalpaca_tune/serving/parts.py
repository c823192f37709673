"""What a server is made of."""

from __future__ import annotations

from dataclasses import dataclass

from koalpaca_tune.serving.doors import Doors
from koalpaca_tune.serving.limits import Limits
from koalpaca_tune.serving.metrics import Metrics
from koalpaca_tune.serving.scheduler import Scheduler
from koalpaca_tune.serving.served import Served


@dataclass(frozen=True)
class Parts:
    """The models, what runs them, and how much of it anyone may have."""

    served: Served
    scheduler: Scheduler
    metrics: Metrics
    doors: Doors
    limits: Limits
