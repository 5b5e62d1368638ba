"""Settings for all tests, and the way to the helpers in tests/support."""

import os
import signal
import sys
from pathlib import Path

# Nothing here may reach for the Hub; a test that wants a server sets up its own. Read when huggingface_hub is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Not the tests folder itself: its sub-folder `hcmi` would hide the package of that name.
sys.path.insert(0, str(Path(__file__).parent / "support"))

import torch
from hypothesis import settings

# Who starts the tests in the background has them ignore Ctrl-C, which some of them are about.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tiny tensors: more threads only wait for each other.
torch.set_num_threads(1)

# No test asserts a time, and every run tries the same examples.
settings.register_profile("hcmi", deadline=None, derandomize=True, database=None)
settings.load_profile("hcmi")
