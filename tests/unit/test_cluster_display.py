"""What a follower sees: sentences and bars on a terminal, a pod's own lines elsewhere."""

import io
import json
import sys

import pytest

from nearer.cluster.display import Plain, Terminal, choose


class Screen(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        return True


def progress(**fields: object) -> str:
    return json.dumps({"time": "2026-11-25T09:00:00Z", "level": "info", "message": "train", **fields})


def test_a_terminal_gets_a_bar_from_the_progress_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count, rate and time left as the pod reports them; other messages become sentences, foreign lines stay."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    display = choose()
    assert isinstance(display, Terminal)
    display.line("aaaaa", progress(done=10, total=40, per_second=2.5, seconds_left=3725))
    display.line("aaaaa", progress(steps=3))
    display.line("aaaaa", json.dumps({"level": "warning", "message": "no GPU"}))
    display.line("aaaaa", "Loading weights")
    display.say("on node-1")
    display._bars.refresh()
    display.close()
    text = screen.getvalue()
    for words in ("aaaaa train", "10/40", "2.5/s", "1:02:05", "[aaaaa] train  (steps=3)", "[aaaaa] warning: no GPU",
                  "[aaaaa] Loading weights", "nearer: on node-1"):  # fmt: skip
        assert words in text
    assert '"done"' not in text


def test_a_file_gets_the_lines_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is taken away, not even progress; warnings go where the CI shows them as well."""
    told: list[tuple[str, str]] = []
    display = Plain(annotate=lambda level, text: told.append((level, text)))
    display.line("aaaaa", progress(done=1, total=2))
    display.line("aaaaa", "")
    display.warn("gap: x")
    out, err = capsys.readouterr()
    assert out == f"[aaaaa] {progress(done=1, total=2)}\n[aaaaa] \n"
    assert err == "nearer: warning: gap: x\n"
    assert told == [("warning", "gap: x")]
