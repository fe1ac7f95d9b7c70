"""Progress on standard error: a bar on a terminal, else a line every ten seconds."""

import sys

import pytest

from l2v.app.bulk.reporting import Report


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_ten_seconds(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of earlier runs count as done, but not towards the speed."""
    report = Report(total=1000)
    report.note("the service is busy")
    report.begin(500)
    report.resumed = 50
    with report.bar:
        report.advance(600, 10, 100)
        clock[0] = 10
        report.advance(700, 10, 100)
        report.note("the service is busy")
        clock[0] = 20
        report.note("the service is busy")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" rows")[0] for line in lines] == ["l2v: 70 %, 70/~100", "l2v: the service is busy"]


def test_a_terminal_gets_a_bar(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    report = Report(total=1000)
    report.note("the service is away")
    assert capsys.readouterr().err == "l2v: the service is away\n"
    with report.bar:
        report.begin(500)
        report.resumed = 25
        report.advance(700, 10, 100)
        report.bar.refresh()
        assert "35/~50 rows" in (shown := capsys.readouterr().err)
        assert "70%" in shown
        assert "left" in shown
        report.note("the service is busy")
        report.bar.refresh()
    shown = capsys.readouterr().err
    assert "the service is busy" in shown
    assert "l2v: " not in shown
