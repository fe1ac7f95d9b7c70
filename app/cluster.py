"""The service on a Ray cluster: each replica is the whole service, behind the proxies of Ray Serve.

    serve run l2v.app.cluster:build model=mistral-7b-supervised

Ray places the replicas, routes to them, scales them and replaces those that fail. A request is batched with all others
of its replica, as in a process that stands alone. Needs the extra `ray`.
"""

import asyncio
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import Metric
from pydantic_settings import SettingsConfigDict
from ray import serve

from l2v.app.http.errors import UnavailableError
from l2v.app.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

NAME = "l2v"
# How often Ray checks a replica, and what it waits for the answer. After three that fail it replaces the replica.
_CHECK_SECONDS, _CHECK_TIMEOUT_SECONDS = 2.0, 10.0
_POLL_SECONDS = 0.1
# What a scrape waits for the other replicas; Prometheus itself waits ten seconds by default.
_SCRAPE_SECONDS = 5.0


class ReplicaSettings(Settings):
    """The settings of each replica: arguments of the application, else the variables where it is built.

    Connections are those of Ray's proxies, so `host`, `port`, `max_connections`, `max_header_bytes` and `idle_timeout`
    are without effect.
    """

    model_config = SettingsConfigDict(extra="forbid")


class Replica:
    """One process with the encoder. Ray sends it requests once `check_health` has passed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._failure = ""

    def __serve_build_asgi_app__(self) -> "FastAPI":
        from l2v.app.commands.loading import prepare_service

        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # as the command `l2v` does
        prepare_service(self._settings.log_level)  # before torch comes with the next
        from l2v.app.http.routes.dependencies import exposition
        from l2v.app.main import create_app

        app = create_app(self._settings, on_failure=self._fail)
        app.dependency_overrides[exposition] = self._all_metrics
        self._service = app.state.service
        return app

    def _fail(self, reason: str) -> None:
        self._failure = reason

    async def check_health(self) -> None:
        """Waits while the encoder loads; raises the reason if it cannot be loaded or its engine is down."""
        from l2v.app.engine.service import State

        while self._service.state is State.LOADING and not self._failure:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)  # the loader is a thread
        if self._failure:
            raise RuntimeError(self._failure)

    def metrics(self) -> list[Metric]:
        """This replica's metrics, each sample labelled with the replica."""
        label = {"replica": serve.get_replica_context().replica_id.unique_id}
        families = list(self._service.metrics.registry.collect())
        for family in families:
            family.samples = [sample._replace(labels=sample.labels | label) for sample in family.samples]
        return families

    async def _all_metrics(self) -> bytes:
        """Those of all replicas, since a scrape reaches any one of them; raises `UnavailableError` if one is silent."""
        replica = serve.get_replica_context()
        asked = serve.get_deployment_handle(replica.deployment, replica.app_name).broadcast("metrics")
        try:
            told = await asked.results_async(timeout_s=_SCRAPE_SECONDS, return_exceptions=True)
        except TimeoutError:
            raise UnavailableError(f"a replica did not tell its metrics within {_SCRAPE_SECONDS:g} s") from None
        # A replica that ended meanwhile gives an error, and has no metrics any more.
        return prometheus_client.generate_latest(Gathered([each for each in told if isinstance(each, list)]))


@dataclass(frozen=True)
class Gathered:
    """The metrics of several registries as those of one."""

    registries: Sequence[Sequence[Metric]]

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for family in chain.from_iterable(self.registries):
            families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            ).samples += family.samples
        return families.values()


def build(settings: ReplicaSettings) -> serve.Application:
    """The application that Ray Serve runs; how many replicas, and where, is for Ray's own configuration to say."""
    deployment = serve.deployment(
        name=NAME,
        # The service refuses what is too much for it, with 429; what is beyond this number waits in Ray without end.
        max_ongoing_requests=2 * settings.max_requests,
        graceful_shutdown_timeout_s=settings.drain_timeout,
        health_check_period_s=_CHECK_SECONDS,
        health_check_timeout_s=_CHECK_TIMEOUT_SECONDS,
    )
    return deployment(serve.ingress()(Replica)).bind(settings)
