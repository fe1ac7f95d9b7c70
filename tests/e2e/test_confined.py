"""The service shut in as a container can be: an unprivileged user, no capability, no new rights, nothing to write."""

import os
import re
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.serving import ServerProcess

# In mounts of its own: all read-only but a /var/tmp in memory; an interpreter in a closed home is made reachable.
CONFINE = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
if [ -n "$CLOSED" ]; then
    mount --bind "$INTERPRETER" /mnt
    mount -t tmpfs -o mode=755 tmpfs "$CLOSED"
    mkdir -p "$INTERPRETER"
    mount --bind /mnt "$INTERPRETER"
    mount -o remount,bind,ro "$INTERPRETER"
    mount -o remount,ro "$CLOSED"
fi
mount -o remount,bind,ro /
exec setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


def closed(path: Path) -> Path | None:
    """The first folder on the way to a path that other users cannot enter."""
    return next((folder for folder in reversed([path, *path.parents]) if not folder.stat().st_mode & 0o001), None)


class Confined(ServerProcess):
    """`l2v serve`, shut in."""

    def __init__(self, *flags: str) -> None:
        interpreter = Path(sys.base_prefix).resolve()
        super().__init__(
            *flags,
            HOME="/nonexistent",
            TMPDIR="/var/tmp",  # noqa: S108 - one of its own
            HF_HOME="/var/tmp/models",  # noqa: S108
            HF_HUB_CACHE="",
            INTERPRETER=str(interpreter),
            CLOSED=str(closed(interpreter) or ""),
        )
        namespaces = ["unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
        self._command = [*namespaces, "sh", "-c", CONFINE, "confine", *self._command]

    @property
    def inside(self) -> psutil.Process:
        """The service itself, which is the first process of its namespace."""
        (service,) = psutil.Process(self.process.pid).children()
        return service

    def terminate(self) -> int:
        """What `docker compose stop` does: SIGTERM to the container's first process."""
        self.inside.terminate()
        return self.process.wait(60)


@pytest.fixture
def confined() -> Confined:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("only root with util-linux can shut a process in")
    if closed(Path(sys.executable).parent) is not None:
        pytest.skip(f"{closed(Path(sys.executable).parent)} is closed to other users")
    return Confined()


def test_it_serves_without_rights_or_a_place_to_write_and_loses_nothing_when_stopped(confined: Confined) -> None:
    with confined as server:
        server.wait_ready()
        status = Path(f"/proc/{server.inside.pid}/status").read_text()
        assert re.search(r"^Uid:\s+10001\s+10001\s+10001\s+10001$", status, re.MULTILINE)
        assert re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert re.findall(r"^Cap\w+:\s+(\w+)$", status, re.MULTILINE) == ["0" * 16] * 5
        mounts = Path(f"/proc/{server.inside.pid}/mounts").read_text()
        assert re.search(r"^\S+ / \S+ ro\b", mounts, re.MULTILINE)
        answer = server.client.post("/embed", json={"inputs": ["the cat sits on the mat"] * 3})
        assert answer.status_code == 200
        assert server.client.get("/").status_code == 200
        assert not [line for line in server.log_lines if line["level"] not in ("info", "debug")]
        stop_under_load(server)


def stop_under_load(server: Confined) -> None:
    """Clients send without pause while the process is told to stop: each gets whole answers, and at last a 503."""
    texts = [f"text {i} " + "words " * 20 for i in range(32)]
    outcomes: list[int] = []
    sent = threading.Semaphore(0)

    def client() -> None:
        # A connection for each request, so that none is closed while it is idle; and no time lost between them.
        with httpx.Client(base_url=server.url, headers={"Connection": "close"}, timeout=60) as http:
            while True:
                sent.release()
                response = http.post("/embed", json={"inputs": texts})
                outcomes.append(response.status_code)
                if response.status_code == 503:
                    assert response.json()["error"]["message"] == "the service is shutting down"
                    return
                assert response.content.count(b"],[") == len(texts) - 1

    with ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(client) for _ in range(6)]
        for _ in range(18):
            assert sent.acquire(timeout=60)
        assert server.terminate() == 0
        for future in clients:
            future.result()
    assert outcomes.count(503) == 6
    assert outcomes.count(200) >= 12


def test_a_container_that_is_stopped_while_it_loads_ends_at_once(confined: Confined) -> None:
    """The first process of a namespace gets only signals that it handles: unhandled, it would wait for SIGKILL."""
    with confined as server:
        server.wait_open()
        assert server.terminate() == 0
