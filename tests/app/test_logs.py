"""Logs: lines for people on a terminal, JSON elsewhere."""

import json
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from tests.bulk.shell import L2V
from tests.serving import free_port

CODE = """
import logging, sys
from l2v.app.logs import READY, configure_logging
configure_logging(*sys.argv[1:])
logging.info("hidden")
logging.warning("two\\nlines", extra={"variable": "L2V_X", "model": ""})
logging.getLogger(READY).info("ready", extra={"url": "http://localhost:8080/"})
"""


def on_terminal(*command: str, until: str) -> str:
    """What a command prints to a terminal until some words appear; then it is killed."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(command, stderr=terminal, stdout=terminal, stdin=subprocess.DEVNULL)
    os.close(terminal)
    shown, deadline = "", time.monotonic() + 180
    try:
        while until not in shown and time.monotonic() < deadline:
            shown += os.read(main, 10_000).decode(errors="replace")
    except OSError:  # the command has ended
        pass
    finally:
        process.kill()
        process.wait()
        os.close(main)
    assert until in shown, shown
    return shown


@pytest.mark.parametrize("format_", ["auto", "text"])
def test_a_terminal_shows_a_line_for_each_message(format_: str) -> None:
    shown = on_terminal(sys.executable, "-c", CODE, "warning", format_, until="localhost:8080/")
    assert "\x1b[" in shown  # colour
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "[warning  ] two lines variable=L2V_X",
        "[info     ] ready url=http://localhost:8080/",
    ]


def test_elsewhere_logs_are_json_and_text_has_no_colour() -> None:
    def run(*arguments: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", CODE, *arguments], check=True, capture_output=True, text=True)
        return done.stderr.splitlines()

    for level, messages in (("warning", ["two\nlines", "ready"]), ("error", [])):
        assert [json.loads(line)["message"] for line in run(level)] == messages
    assert not any("\x1b" in line for line in run("warning", "text"))


def test_a_terminal_sees_the_address_of_the_page_when_the_service_is_ready() -> None:
    port = free_port()
    shown = on_terminal(L2V, "serve", "--port", str(port), until=f"http://127.0.0.1:{port}/\x1b")
    lines = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", shown).splitlines()
    assert "loading model=demo" in lines[0]
    assert any(line.endswith("] reading the weights") for line in lines)
    assert any(f"ready model=demo url=http://127.0.0.1:{port}/" in line for line in lines)
