"""The scripts of bench/ as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_BENCH = Path(__file__).parents[2] / "bench"


def load_script(name: str) -> ModuleType:
    """As a script's folder has it, but without that folder on the path: its names are others' too."""
    spec = importlib.util.spec_from_file_location(name, _BENCH / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
