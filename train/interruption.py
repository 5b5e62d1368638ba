"""Ctrl-C between two steps instead of in the middle of one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from accelerate import Accelerator


class Interruption:
    """
    A context in which Ctrl-C is noted, so that the step in progress ends and a checkpoint can be written.

    Launchers pass on a Ctrl-C that the terminal has sent to every process already, so a second one changes nothing; the
    third raises `KeyboardInterrupt` at once.

    Args:
        accelerator: of this process; all processes have to hear of it.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.noted = 0
        self._at_once = False

    def __enter__(self) -> "Interruption":
        # Elsewhere than in Python's main thread there is no Ctrl-C; and who handles it in an own way is left to it.
        main = threading.current_thread() is threading.main_thread()
        self._listening = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._listening:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._listening:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.noted and isinstance(error, Exception):
            # Such as that reader processes are gone, which the terminal interrupts too.
            raise KeyboardInterrupt from error

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A part that changes nothing a checkpoint holds: one process leaves it at once, several end it together."""
        self._at_once = self.accelerator.num_processes == 1
        yield
        self._at_once = False

    def requested(self) -> bool:
        """Whether there was a Ctrl-C in any process. All processes ask after the same step."""
        if self.noted:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted += 1
        if self._at_once or self.noted > 2:
            raise KeyboardInterrupt
