"""The service confined like a container: an unprivileged user, no capabilities, no new privileges, a read-only root."""

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

# In a mount namespace: everything is read-only except a tmpfs at /var/tmp. If the interpreter is in a home folder that
# the user cannot enter, it is bind-mounted there.
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
    """The outermost folder of a path that other users cannot enter."""
    return next((folder for folder in reversed([path, *path.parents]) if not folder.stat().st_mode & 0o001), None)


class Confined(ServerProcess):
    """`l2v serve`, confined."""

    def __init__(self, *flags: str) -> None:
        interpreter = Path(sys.base_prefix).resolve()
        super().__init__(
            *flags,
            HOME="/nonexistent",
            TMPDIR="/var/tmp",  # noqa: S108 - a mount of the namespace
            HF_HOME="/var/tmp/models",  # noqa: S108
            HF_HUB_CACHE="",
            INTERPRETER=str(interpreter),
            CLOSED=str(closed(interpreter) or ""),
        )
        namespaces = ["unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
        self._command = [*namespaces, "sh", "-c", CONFINE, "confine", *self._command]

    @property
    def inside(self) -> psutil.Process:
        """The service, which is the first process of its PID namespace."""
        (service,) = psutil.Process(self.process.pid).children()
        return service

    def terminate(self) -> int:
        """Sends SIGTERM to the first process, as `docker compose stop` does."""
        self.inside.terminate()
        return self.process.wait(60)


@pytest.fixture
def confined() -> Confined:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("requires root and util-linux")
    if closed(Path(sys.executable).parent) is not None:
        pytest.skip(f"{closed(Path(sys.executable).parent)} is not accessible to other users")
    return Confined()


def test_it_serves_without_privileges_or_writable_folders_and_drains_on_sigterm(confined: Confined) -> None:
    with confined as server:
        server.wait_ready()
        status = Path(f"/proc/{server.inside.pid}/status").read_text()
        assert re.search(r"^Uid:\s+10001\s+10001\s+10001\s+10001$", status, re.MULTILINE)
        assert re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert re.findall(r"^Cap\w+:\s+(\w+)$", status, re.MULTILINE) == ["0" * 16] * 5
        mounts = Path(f"/proc/{server.inside.pid}/mounts").read_text()
        assert re.search(r"^\S+ / \S+ ro\b", mounts, re.MULTILINE)
        response = server.client.post("/embed", json={"inputs": ["the cat sits on the mat"] * 3})
        assert response.status_code == 200
        assert server.client.get("/").status_code == 200
        assert not [line for line in server.log_lines if line["level"] not in ("info", "debug")]
        stop_under_load(server)


def stop_under_load(server: Confined) -> None:
    """Sends SIGTERM while clients send without pause. Each client gets complete responses, then a 503."""
    texts = [f"text {i} " + "words " * 20 for i in range(32)]
    outcomes: list[int] = []
    sent = threading.Semaphore(0)

    def client() -> None:
        # One connection per request, so that the server closes none while it is idle.
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


def test_sigterm_during_loading_ends_the_container_at_once(confined: Confined) -> None:
    """The first process of a PID namespace receives only signals that it handles, so the handler must be set early."""
    with confined as server:
        server.wait_open()
        assert server.terminate() == 0
