"""`l2v serve`."""

import errno
import logging
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Iterable

from l2v.app.settings import Settings
from l2v.models.runtime import prepare_libraries
from l2v.models.settings import PREFIX

logger = logging.getLogger(__name__)

# Variables that Kubernetes sets in the pods next to a Service whose name starts with l2v.
_SERVICE_LINKS = re.compile(rf"{PREFIX}(\w+_)?(SERVICE|PORT)(_|$)")
# How many files other than connections may be open, such as libraries, the model and logs.
_FILES = 256


class Serve(Settings):
    """Serve an encoder over HTTP.

    Examples:
        l2v serve
        l2v serve --model sheared-llama-1.3b-supervised --port 9000
        l2v serve --model meta-llama/Meta-Llama-3-8B-Instruct --adapters my/mntp,my/contrastive@v2
        l2v serve --lora-modules law=my/law-adapter,code=./code-adapter
    """

    def cli_cmd(self) -> None:
        # In a container, process 1 ignores SIGTERM until a handler is set. uvicorn sets its own handler later.
        signal.signal(signal.SIGTERM, lambda *_: _exit(""))
        if reason := _unusable(self.host, self.port):  # check this before loading torch, which takes seconds
            _exit(f"l2v: {reason}")
        from l2v.app.logs import configure_logging

        configure_logging(self.log_level, self.log_format)
        logger.info("loading", extra={"model": self.model})
        prepare_libraries(serving=True)  # before the next import loads torch
        for name in unknown(os.environ):
            logger.warning("unknown setting", extra={"variable": name})
        if reason := _allow_files(self.max_connections):
            _exit(f"l2v: {reason}")
        if self.http_workers > 1:
            from l2v.app.workers.supervisor import serve
        else:
            serve = _serve
        reason = serve(self)
        _exit(f"l2v: {reason}" if reason else "")


def _serve(settings: Settings) -> str:
    """Serves in this process until a signal, or until the engine fails. Returns the reason for a failure, else ""."""
    from l2v.app.http.server import Server
    from l2v.app.main import create_app

    failures: list[str] = []

    def stop(reason: str) -> None:
        failures.append(reason)
        server.drain()

    server = Server(create_app(settings, on_failure=stop), settings)
    try:
        server.run()
    except SystemExit:
        failures.append(_unusable(settings.host, settings.port) or f"cannot listen on {settings.host}:{settings.port}")
    return next(iter(failures), "")


def unknown(names: Iterable[str]) -> list[str]:
    """The environment variables that have the prefix of settings but name no setting."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    return sorted(
        name for name in names if name.startswith(PREFIX) and name not in known and not _SERVICE_LINKS.match(name)
    )


def _unusable(host: str, port: int) -> str:
    """The reason why a server cannot listen at an address, or ""."""
    try:
        for family, *_, address in socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM):
            socket.create_server(address[:2], family=family).close()
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return ""  # let the server try, since a host name may have another address that is available
        reason = (error.strerror or str(error)).partition(" (")[0]
        return f"cannot listen on {host}:{port} ({reason}): end the process that uses the port, or set another address"
    return ""


def _allow_files(connections: int) -> str:
    """Raises the limit of open files to what the connections require. Returns the reason if that fails, else ""."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    required = connections + _FILES
    if resource.RLIM_INFINITY != hard < required:
        return f"max_connections {connections} requires {required} open files; the limit is {hard} (ulimit -Hn)"
    if resource.RLIM_INFINITY != soft < required:
        resource.setrlimit(resource.RLIMIT_NOFILE, (required, hard))
    return ""


def _exit(reason: str) -> None:
    """Prints the reason, if any, and ends the process. Python's normal exit aborts if a daemon thread runs torch."""
    if reason:
        print(reason, file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if reason else 0)
