"""Ends a call of a network that takes too long: onnxruntime lets go of it between two of its nodes.

A thread looks on while calls are being made, and sleeps for good when none is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import onnxruntime as ort

LOOKS_EVERY_SECONDS = 0.02
"""How much longer than allowed a call may take."""
IDLE_LOOKS = 50
"""Looks without a call after which the thread sleeps until there is one."""


class Watchdog:
    """Watches the calls of one thread, one at a time."""

    def __init__(self) -> None:
        self._call: tuple[float, ort.RunOptions] | None = None
        """When the call is to end, by `time.monotonic`, and what ends it."""
        self._wanted = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(self, seconds: float) -> Iterator[ort.RunOptions]:
        """What a call is made with that must not take longer; if it did, `terminate` is set."""
        options = ort.RunOptions()
        self._call = time.monotonic() + seconds, options
        if not self._wanted.is_set():
            self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
            self._thread.start()
        try:
            yield options
        finally:
            self._call = None

    def close(self) -> None:
        """Ends the thread."""
        self._closed = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        idle = 0
        while not self._closed:
            call = self._call
            idle = 0 if call is not None else idle + 1
            if call is not None and time.monotonic() >= call[0]:
                call[1].terminate = True
            if idle > IDLE_LOOKS:
                idle = 0
                self._wanted.clear()
                if self._call is None:
                    self._wanted.wait()
            time.sleep(LOOKS_EVERY_SECONDS)
