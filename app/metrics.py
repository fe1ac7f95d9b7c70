"""The service's Prometheus metrics."""

from collections import defaultdict
from collections.abc import Iterable
from functools import partial

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        prometheus_client.PlatformCollector(registry=registry)
        prometheus_client.GCCollector(registry=registry)
        counter = partial(Counter, registry=registry)
        # Only front ends (`http_workers`) use `multiprocess_mode`. `livesum` adds up the gauges of running ones.
        gauge = partial(Gauge, registry=registry, multiprocess_mode="livesum")
        histogram = partial(Histogram, registry=registry)
        timer = partial(histogram, buckets=_SECONDS)
        self.requests = counter("l2v_requests", "Requests by route, status and model.", ["route", "status", "model"])
        self.request_seconds = timer(
            "l2v_request_seconds", "Time from the request's headers to the end of the response.", ["route"]
        )
        self.stage_seconds = timer("l2v_stage_seconds", "Time per stage of a request.", ["stage"])
        self.inputs = counter("l2v_inputs", "Inputs to embed, by model.", ["model"])
        self.tokens = counter("l2v_tokens", "Tokens of the inputs to embed, by model.", ["model"])
        self.truncated = counter("l2v_truncated_inputs", "Truncated inputs, by model.", ["model"])
        self.batch_tokens = histogram("l2v_batch_tokens", "Tokens per batch.", buckets=[2**i for i in range(3, 16)])
        self.batch_inputs = histogram("l2v_batch_inputs", "Inputs per batch.", buckets=[2**i for i in range(12)])
        self.batch_seconds = timer("l2v_batch_seconds", "Time per forward pass.")
        self.batches = counter("l2v_batches", "Forward passes by outcome.", ["outcome"])
        self.batch_budget = gauge("l2v_batch_budget_tokens", "Token budget of a batch; reduced when memory runs out.")
        self.queue_tokens = gauge("l2v_queue_tokens", "Tokens waiting in the queue.")
        self.queue_inputs = gauge("l2v_queue_inputs", "Inputs waiting in the queue.")
        self.in_flight = gauge("l2v_requests_in_flight", "Requests in flight.")
        self.rejected = counter("l2v_rejected", "Requests rejected for overload, by reason.", ["reason"])
        self.engine_up = gauge("l2v_engine_up", "1 while the engine is up, else 0.")
        self.model_info = gauge(
            "l2v_model_info", "The served models; always 1.", ["model", "dtype", "device", "version"]
        )
        self.memory = gauge("l2v_device_memory_bytes", "Device memory by kind.", ["kind"])

        # Start each series at 0, so that rate() sees the first increase.
        for reason in ("queue", "requests", "bodies", "connections"):
            self.rejected.labels(reason)
        for outcome in ("ok", "not_finite", "error", "out_of_memory", "device_lost"):
            self.batches.labels(outcome)

    def start_model(self, label: str) -> None:
        """Starts the series of a model at 0."""
        for metric in (self.inputs, self.tokens, self.truncated):
            metric.labels(label)

    def observe_batch(self, tokens: int, inputs: int, seconds: float, outcome: str) -> None:
        """Counts a completed forward pass; the outcome `not_finite` means that a vector holds NaN or infinity."""
        self.batches.labels(outcome).inc()
        self.batch_tokens.observe(tokens)
        self.batch_inputs.observe(inputs)
        self.batch_seconds.observe(seconds)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)


class Merged(Collector):
    """The merged metrics of several processes: samples with the same name and labels are added up."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families: dict[str, Metric] = {}
        merged: defaultdict[str, dict[object, Sample]] = defaultdict(dict)
        for family in families:
            self._families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            samples = merged[family.name]
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                known = samples.get(key)
                samples[key] = known._replace(value=known.value + sample.value) if known else sample
        for name, family in self._families.items():
            family.samples = list(merged[name].values())

    def collect(self) -> Iterable[Metric]:
        return self._families.values()
