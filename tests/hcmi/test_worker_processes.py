import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hcmi.worker_processes import interrupts_held

SUPPORT = Path(__file__).parents[1] / "support"
# In a new interpreter: the first process brings multiprocessing's resource tracker with it.
FIRST_AND_SECOND = f"""
import multiprocessing, signal, sys; sys.path.insert(0, {str(SUPPORT)!r})
from hcmi.worker_processes import interrupts_held
from pool_jobs import tell_held
context = multiprocessing.get_context("spawn")
for _ in range(2):
    here, there = context.Pipe()
    with interrupts_held():
        process = context.Process(target=tell_held, args=(there,))
        process.start()
    print(here.recv(), signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    process.join()
"""

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="the system holds no signals back")


def test_processes_see_no_interrupts_from_the_first_on():
    told = subprocess.run([sys.executable, "-c", FIRST_AND_SECOND], capture_output=True, text=True, timeout=120)
    assert told.stdout.splitlines() == ["True False"] * 2, told.stderr


def test_an_interrupt_comes_right_after():
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        reached.append(1)
    assert reached
