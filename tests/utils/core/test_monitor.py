"""What a run reports: one line each, whatever a file is called."""

from __future__ import annotations

import pytest

from utils.core.errors import Cancelled
from utils.core.monitor import CallbackMonitor, TerminalMonitor


def test_a_name_with_a_line_end_stays_in_its_line(capsys):
    callback = CallbackMonitor()
    for monitor in (TerminalMonitor(), callback):
        monitor.say("a\nb.npy: 3 frames")
    assert capsys.readouterr().out == "a\\nb.npy: 3 frames\n"
    assert callback.lines == ["a\\nb.npy: 3 frames"]


def test_a_cancelled_run_ends_at_the_next_line_or_item():
    is_cancelled = False
    monitor = CallbackMonitor(is_cancelled=lambda: is_cancelled)
    items = monitor.track("ab", 2, "step")
    assert next(items) == "a"
    is_cancelled = True
    with pytest.raises(Cancelled):
        next(items)
    with pytest.raises(Cancelled):
        monitor.say("end")
