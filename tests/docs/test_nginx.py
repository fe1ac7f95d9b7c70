"""The docs' nginx configuration in front of a real service: TLS, failover, and paths that are not public."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.docs.blocks import BLOCKS
from tests.programs import program
from tests.serving import ServerProcess, free_port, wait_for


@pytest.fixture
def proxy(demo: ServerProcess, tmp_path: Path) -> Iterator[httpx.Client]:
    """nginx with this configuration; its first server is the service, its second a port that refuses connections."""
    nginx, openssl = program("nginx", "nginx-light"), program("openssl", "openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=embeddings.example.org"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    (block,) = [block for block in BLOCKS if block.language == "nginx"]
    port = free_port()
    site = block.body
    for theirs, ours in {
        "10.0.0.1:8080": f"127.0.0.1:{demo.port}",
        "10.0.0.2:8080": f"127.0.0.1:{free_port()}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/embeddings.pem": str(certificate),
        "/etc/ssl/embeddings.key": str(key),
    }.items():
        assert theirs in site
        site = site.replace(theirs, ours)
    paths = "".join(f"{name}_temp_path {tmp_path}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}} "
        f"http {{ access_log off; {paths}\n{site}\n}}"
    )
    process = subprocess.Popen([nginx, "-c", config, "-e", tmp_path / "error.log"], stderr=subprocess.DEVNULL)
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=False, timeout=60) as client:  # noqa: S501
        try:
            wait_for(lambda: _is_ready(client), what="nginx")
            yield client
        finally:
            process.terminate()
            process.wait(20)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_the_configuration_balances_fails_over_and_hides_the_metrics(proxy: httpx.Client, demo: ServerProcess) -> None:
    expected = demo.client.post("/embed", json={"inputs": "the cat sits on the mat"}).json()
    for _ in range(6):
        response = proxy.post("/embed", json={"inputs": "the cat sits on the mat"})
        assert response.status_code == 200
        assert response.json()["tokens"] == expected["tokens"]
        assert len(response.headers["X-Request-Id"]) == 32  # nginx's id, passed through
    assert proxy.get("/metrics").status_code == 403
    assert proxy.post("/embed", json={"inputs": "x" * 17_000_000}).status_code == 413
