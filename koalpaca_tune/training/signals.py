"""SIGTERM and SIGINT end a run between two steps: spot machines are taken away with half a minute's notice."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

HEARD = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SystemExit):
    """A run that ended early because it was asked to, after a checkpoint. Exit status 128 + signal.

    Attributes:
        line: for a person: what was kept, and how to go on.
    """

    def __init__(self, caught: signal.Signals, step: int) -> None:
        super().__init__(128 + caught)
        self.line = (
            f"{caught.name}: 단계 {step:,}의 체크포인트를 남겼습니다. 같은 명령에 --resume을 붙이면 이어 합니다. "
            f"(stopped after step {step:,} with a checkpoint; the same command with --resume goes on)"
        )


class Signals:
    """While entered, the first signal is only noted; a second one does what it would have done.

    Attributes:
        caught: the first one, or None.
    """

    def __init__(self) -> None:
        self.caught: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Python lets the main thread alone set handlers
        if threading.current_thread() is threading.main_thread():
            for one in HEARD:
                before = signal.getsignal(one)
                # a shell starts background jobs with SIGINT ignored; None: set by another language
                if before not in (signal.SIG_IGN, None):
                    self._before[one] = before
                    signal.signal(one, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_back()

    def _put_back(self) -> None:
        for one, before in self._before.items():
            signal.signal(one, before)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.caught is None:
            self.caught = signal.Signals(number)
            return
        self._put_back()
        signal.raise_signal(number)
