"""`l2v serve --http-workers 2`: several processes act as one, and a front end that dies takes only its own requests."""

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import product
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.adapters import Stack
from tests.app.recording import PATHS, POSTS
from tests.serving import LOAD_SECONDS, ServerProcess, wait_for

FRONT_ENDS, CONNECTIONS, CLIENTS = 2, 40, 6
KEY = "secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}
# Headers that differ between any two responses.
VARYING = {"date", "x-request-id", "server-timing"}


class Workers(ServerProcess):
    """The service with two front ends."""

    def __init__(self, *flags: str, **environment: str) -> None:
        super().__init__("--http-workers", str(FRONT_ENDS), *flags, **environment)
        # Leaves no connection open, so that tests can count theirs.
        self.client = httpx.Client(base_url=self.url, timeout=60, headers={"Connection": "close"})

    @property
    def front_ends(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if _is_front_end(child)]

    @property
    def folder(self) -> Path:
        """The service's private folder, where its front ends count."""
        (file,) = {file.path for file in self.front_ends[0].open_files() if file.path.endswith("table")}
        return Path(file).parent

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        text = httpx.get(f"{self.url}/metrics").text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def _is_front_end(process: psutil.Process) -> bool:
    try:
        return "l2v.app.workers.frontend" in process.cmdline()
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return False


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Two front ends, with a file of keys that is gone once they have started."""
    (keys := tmp_path_factory.mktemp("keys") / "keys").write_text(KEY)
    with Workers("--api-keys-file", str(keys), "--max-connections", str(CONNECTIONS)) as server:
        server.wait_ready()
        keys.unlink()
        yield server


def test_responses_are_those_of_one_process(demo: ServerProcess, workers: Workers) -> None:
    """Each front end answers each request as `l2v serve` does, to the last bit of a vector."""
    with httpx.Client(base_url=demo.url, timeout=60) as one, ExitStack() as stack:
        # A front end with fewer connections takes the next one, so these reach both.
        several = [stack.enter_context(httpx.Client(base_url=workers.url, timeout=60)) for _ in range(4)]
        for number, (path, (name, headers, body)) in enumerate(product(PATHS, POSTS)):
            expected = one.post(path, headers=headers, content=body)
            response = several[number % 4].post(path, headers=HEADERS | headers, content=body)
            assert _comparable(response) == _comparable(expected), (path, name)
        for path in ("/prompts", "/health", "/ready", "/docs", "/info", "/other"):
            assert {_comparable(client.get(path, headers=HEADERS)) for client in several} == {
                _comparable(one.get(path))
            }
        served = [len(process.net_connections("tcp")) for process in workers.front_ends]
        assert min(served) >= 1 + 2, "a front end has no connections beside the one that it listens on"
        infos = {client.get("/v1/models", headers=HEADERS).text for client in several}
        assert len(infos) == 1
        assert _metrics(several[0]) == _metrics(one)


def _metrics(client: httpx.Client) -> set[tuple[str, tuple[str, ...]]]:
    """The names of all metrics and of their labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(sample.name, tuple(sorted(sample.labels))) for family in families for sample in family.samples}


def _comparable(response: httpx.Response) -> tuple[int, frozenset[tuple[str, str]], bytes]:
    headers = {name: value for name, value in response.headers.items() if name not in VARYING}
    # Cohere's responses have a random id.
    content = re.sub(rb'^\{"id":"[^"]*"', b"", response.content)
    return response.status_code, frozenset(headers.items()), content


def test_a_front_end_loads_no_torch(workers: Workers) -> None:
    for process in workers.front_ends:
        assert not [file.path for file in process.memory_maps() if "libtorch" in file.path]


def test_limits_hold_over_all_front_ends(workers: Workers) -> None:
    _fill_connections(workers)


def _fill_connections(workers: Workers) -> None:
    """Opens as many connections as are allowed, and one more, which is rejected."""
    with ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", workers.port))) for _ in range(CONNECTIONS)
        ]
        wait_for(lambda: _connections(workers) == CONNECTIONS, what="connections")
        with socket.create_connection(("127.0.0.1", workers.port)) as excess:
            assert b"max_connections" in excess.recv(10_000)
        assert all(_is_open(connection) for connection in opened)
    wait_for(lambda: _connections(workers) == 0, what="closed connections")


def _connections(workers: Workers) -> int:
    return sum(
        connection.status == psutil.CONN_ESTABLISHED
        for process in workers.front_ends
        for connection in process.net_connections("tcp")
    )


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True


def test_a_killed_front_end_is_replaced_and_only_its_own_requests_fail(workers: Workers) -> None:
    stopped, outcomes = threading.Event(), list[list[int | None]]()

    def send(done: list[int | None]) -> None:
        """Sends requests on one connection as long as it lasts, then on another; None: the connection broke."""
        with httpx.Client(base_url=workers.url, headers=HEADERS, timeout=60) as client:
            while not stopped.is_set():
                done.append(_status(client))

    counted = workers.metric("l2v_requests_total")
    threads = []
    for _ in range(CLIENTS):
        outcomes.append([])
        threads.append(threading.Thread(target=send, args=(outcomes[-1],)))
        threads[-1].start()
    wait_for(lambda: all(len(done) > 3 for done in outcomes), what="responses")
    victim, other = workers.front_ends
    victim.kill()
    scrapes = [counted]
    wait_for(
        lambda: scrapes.append(workers.metric("l2v_requests_total")) or _replaced(workers, victim),
        LOAD_SECONDS,
        "replacement",
    )
    before = [len(done) for done in outcomes]
    wait_for(lambda: all(len(done) > count + 3 for done, count in zip(outcomes, before, strict=True)), what="more")
    stopped.set()
    for thread in threads:
        thread.join(60)
    statuses = [status for done in outcomes for status in done]
    assert set(statuses) <= {200, None}
    # Each client had one connection. Those to the other front end did not notice.
    assert all(done.count(None) <= 1 for done in outcomes)
    assert 1 <= statuses.count(None) < CLIENTS
    assert other.is_running()
    scrapes.append(workers.metric("l2v_requests_total"))
    assert scrapes == sorted(scrapes)
    assert scrapes[-1] - counted >= statuses.count(200)
    # The requests and connections of the dead count no more.
    assert workers.metric("l2v_requests_in_flight") == 1
    with httpx.Client(base_url=workers.url) as client:
        assert client.post("/embed", json={"inputs": "a"}).status_code == 401
    _fill_connections(workers)


def _replaced(workers: Workers, victim: psutil.Process) -> bool:
    """Whether there are two front ends again, and both accept connections."""
    front_ends = workers.front_ends
    return victim not in front_ends and len(front_ends) == FRONT_ENDS and workers.log.count("startup complete") >= 3


def test_a_front_end_that_hangs_is_replaced() -> None:
    with Workers("--engine-timeout", "5") as server:
        server.wait_ready()
        with ExitStack() as stack:
            # Front ends with equally many connections take turns, so each gets some of these.
            clients = [stack.enter_context(httpx.Client(base_url=server.url, timeout=60)) for _ in range(CLIENTS)]
            assert {client.get("/health").status_code for client in clients} == {200}
            victim = server.front_ends[0]
            victim.suspend()
            outcomes = [_status(client) for client in clients]
            assert set(outcomes) == {200, None}
            wait_for(lambda: _replaced(server, victim), LOAD_SECONDS, "replacement")
            assert {_status(client) for client in clients} == {200}
        assert server.log.count("a front end hangs and is killed") == 1


def _status(client: httpx.Client) -> int | None:
    """The status of a response; None if the connection breaks."""
    try:
        return client.post("/embed", json={"inputs": "a text"}).status_code
    except httpx.TransportError:
        return None


def test_sigterm_drains_and_a_second_one_ends_all_processes_at_once(workers: Workers) -> None:
    processes, folder = workers.front_ends, workers.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    accepted = threading.Thread(target=_embed_much, args=(workers,))
    accepted.start()
    wait_for(lambda: workers.metric("l2v_queue_inputs") > 0, LOAD_SECONDS, "a request in the queue")
    for process in [*processes, workers.process]:  # as from systemd, which signals all processes of a unit
        process.send_signal(signal.SIGTERM)
    wait_for(lambda: httpx.get(f"{workers.url}/ready").json()["status"] == "draining", what="draining")
    time.sleep(1)  # longer than an idle service takes to end
    assert workers.process.poll() is None
    assert workers.terminate() == 0
    accepted.join(60)
    assert not psutil.wait_procs(processes, 5)[1]
    assert not folder.exists()
    assert "Traceback" not in workers.log


def _embed_much(workers: Workers) -> None:
    """Sends a request that takes long, and whose response never comes."""
    with suppress(httpx.TransportError):
        httpx.post(f"{workers.url}/embed", json={"inputs": ["word " * 300] * 600}, headers=HEADERS, timeout=60)


def test_a_killed_engine_ends_all_processes() -> None:
    with Workers() as server:
        server.wait_ready()
        processes, folder = server.front_ends, server.folder
        server.process.kill()
        with suppress(httpx.TransportError):  # the connection may end first
            assert httpx.post(f"{server.url}/embed", json={"inputs": "a"}, timeout=60).status_code == 503
        assert not psutil.wait_procs(processes, 10)[1]
        assert not folder.exists()
        with socket.create_server(("127.0.0.1", server.port)):
            pass  # the next engine can listen


def test_ctrl_c_ends_all_processes_while_the_model_loads() -> None:
    with Workers() as server:
        wait_for(lambda: len(server.front_ends) == FRONT_ENDS, LOAD_SECONDS, "front ends")
        processes = server.front_ends  # which still import their modules
        os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does
        assert server.process.wait(60) == 0
        assert not psutil.wait_procs(processes, 5)[1]
        assert "Traceback" not in server.log


def test_all_front_ends_have_the_adapters(base: Path, tmp_path: Path) -> None:
    """Those of the settings, and those that are loaded and unloaded through one of them, also once it is replaced."""
    stack = Stack.make(base, tmp_path)
    flags = ["--model", str(base), "--dtype", "float32", "--lora-modules", f"law={stack.root / 'law'}"]
    with Workers(*flags, "--runtime-adapters", str(stack.root), "--api-keys", KEY) as server:
        server.wait_ready()

        def each(path: str, **content: object) -> list[httpx.Response]:
            """The responses of both front ends: one with fewer connections takes the next one."""
            with ExitStack() as opened:
                clients = [opened.enter_context(httpx.Client(base_url=server.url, timeout=60)) for _ in range(4)]
                return [client.post(path, json=content, headers=HEADERS) for client in clients]

        def embeds(model: str, adapter: str) -> None:
            for response in each("/embed", inputs="hello", model=model):
                np.testing.assert_allclose(response.json()["embeddings"][0], stack.merged(adapter), atol=1e-5)

        embeds("law", "law")
        loaded = [response.status_code for response in each("/v1/load_lora_adapter", lora_name="new", lora_path="code")]
        assert loaded == [200, 400, 400, 400]  # the others find the name in use
        embeds("new", "code")
        assert "not a folder" in each("/v1/load_lora_adapter", lora_name="bad", lora_path="..")[0].text
        victim = server.front_ends[0]
        victim.kill()
        wait_for(lambda: _replaced(server, victim), LOAD_SECONDS, "replacement")
        embeds("new", "code")
        assert [response.status_code for response in each("/v1/unload_lora_adapter", lora_name="new")] == [
            *(200, 404, 404, 404)
        ]
        assert {response.status_code for response in each("/embed", inputs="hello", model="new")} == {404}
        embeds("law", "law")
        assert server.terminate() == 0
        assert "Traceback" not in server.log
        assert '"bug"' not in server.log
