"""The service on a Ray cluster. Each replica is a whole service, behind the proxies of Ray Serve.

    serve run l2v.app.cluster:build model=mistral-7b-supervised

Ray places, scales and replaces the replicas and routes requests to them. Each replica batches its own requests, like
a single process. This module requires the extra `ray`.
"""

import asyncio
from itertools import chain

import prometheus_client
from fastapi import FastAPI
from prometheus_client import Metric
from pydantic import model_validator
from pydantic_settings import SettingsConfigDict
from ray import serve

from l2v.app.engine.errors import UnavailableError
from l2v.app.logs import configure_logging
from l2v.app.metrics import Merged
from l2v.app.settings import Settings
from l2v.models.runtime import prepare_libraries

NAME = "l2v"
# How often Ray checks a replica, and how long Ray waits for the result. After three failures, Ray replaces the replica.
_CHECK_SECONDS, _CHECK_TIMEOUT_SECONDS = 2.0, 10.0
_POLL_SECONDS = 0.1
# How long a scrape waits for the other replicas. Prometheus waits ten seconds by default.
_SCRAPE_SECONDS = 5.0


class ReplicaSettings(Settings):
    """The settings of each replica. The application's arguments override the environment in which `build` is called.

    Ray's proxies accept the connections, so `host`, `port`, `max_connections`, `max_header_bytes` and `idle_timeout`
    have no effect.
    """

    model_config = SettingsConfigDict(extra="forbid")

    @model_validator(mode="after")
    def _check_replicas(self) -> "ReplicaSettings":
        if self.http_workers > 1:
            raise ValueError("http_workers must be 1 on Ray, whose own proxies speak HTTP: set num_replicas instead")
        if self.runtime_adapters:
            raise ValueError(
                "runtime_adapters cannot be set on Ray, where a request reaches only one replica: name the adapters "
                "in lora_modules, and deploy the application again to change them"
            )
        return self


class Replica:
    """A process with the encoder. Ray sends requests to this process once `check_health` has passed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._failures: list[str] = []

    def __serve_build_asgi_app__(self) -> FastAPI:
        prepare_libraries(serving=True)  # before the next imports load torch
        configure_logging(self._settings.log_level, self._settings.log_format)
        from l2v.app.http.routes.dependencies import exposition
        from l2v.app.main import create_app

        app = create_app(self._settings, on_failure=self._failures.append)
        app.dependency_overrides[exposition] = self._expose_all
        self._service = app.state.service
        return app

    async def check_health(self) -> None:
        """Wait until the encoder is loaded. Raises `RuntimeError` if loading failed or the engine is down."""
        from l2v.app.engine.lifecycle import State

        while self._service.state is State.LOADING and not self._failures:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)  # a thread loads the encoder
        if self._failures:
            raise RuntimeError(self._failures[0])

    def metrics(self) -> list[Metric]:
        """This replica's metrics, each sample with the label `replica`."""
        label = {"replica": serve.get_replica_context().replica_id.unique_id}
        families = list(self._service.metrics.registry.collect())
        for family in families:
            family.samples = [sample._replace(labels=sample.labels | label) for sample in family.samples]
        return families

    async def _expose_all(self) -> bytes:
        """Returns the metrics of all replicas, because Prometheus' scrape reaches only one replica."""
        context = serve.get_replica_context()
        calls = serve.get_deployment_handle(context.deployment, context.app_name).broadcast("metrics")
        try:
            results = await calls.results_async(timeout_s=_SCRAPE_SECONDS, return_exceptions=True)
        except TimeoutError:
            raise UnavailableError(f"a replica did not return its metrics within {_SCRAPE_SECONDS:g} s") from None
        # For a replica that has ended, the result is an exception.
        families = [result for result in results if isinstance(result, list)]
        return prometheus_client.generate_latest(Merged(chain.from_iterable(families)))


def build(settings: ReplicaSettings) -> serve.Application:
    """The application that Ray Serve runs. Ray's own configuration decides how many replicas run and where."""
    deployment = serve.deployment(
        name=NAME,
        # Ray queues requests beyond this number, without limit. The number is higher than what the service accepts, so
        # that excess requests reach the service, which rejects them with 429.
        max_ongoing_requests=2 * settings.max_requests,
        graceful_shutdown_timeout_s=settings.drain_timeout,
        health_check_period_s=_CHECK_SECONDS,
        health_check_timeout_s=_CHECK_TIMEOUT_SECONDS,
    )
    return deployment(serve.ingress()(Replica)).bind(settings)
