import platform
import subprocess
import sys

import pytest

# Page faults of filling 100 MB ten times, after the heap has found its shape.
CODE = """
import resource, sys
import torch
from hcmi.freed_memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
for number in range(60):
    if number == 50:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(25_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep what is freed")
def test_what_was_freed_is_used_again_without_the_system():
    assert faults("kept") < faults("given back") / 10
