"""What a server counts and times, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0)


class Metrics:
    """One server's numbers; a registry of its own, so that two servers of one process do not add up."""

    def __init__(self) -> None:
        """Everything at zero."""
        own = CollectorRegistry()
        self._registry = own
        self.replies = Counter("koalpaca_replies", "HTTP replies", ("path", "status"), registry=own)
        self.answers = Counter(
            "koalpaca_answers", "answers by model and how they ended", ("model", "end"), registry=own
        )
        self.prompt_tokens = Counter("koalpaca_prompt_tokens", "tokens of prompts", ("model",), registry=own)
        self.new_tokens = Counter("koalpaca_new_tokens", "tokens written", ("model",), registry=own)
        self.queued = Gauge("koalpaca_queued", "requests that wait for a slot", registry=own)
        self.live = Gauge("koalpaca_live", "answers that are being written", registry=own)
        self.wait = Histogram("koalpaca_queue_seconds", "wait for a slot", buckets=SECONDS, registry=own)
        self.first = Histogram(
            "koalpaca_first_token_seconds", "from the request to its first token", buckets=SECONDS, registry=own
        )
        self.whole = Histogram(
            "koalpaca_answer_seconds", "from the request to the end of its answer", buckets=SECONDS, registry=own
        )

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)
