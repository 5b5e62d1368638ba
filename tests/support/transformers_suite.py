"""
The common tests of transformers itself, of the installed version, for the classes of this package.

transformers' source distribution has them at the exact version; no wheel has. It is fetched with pip, once, into a
cache folder: `$HCMI_TEST_CACHE`, or the user's own. Where it cannot be had, the tests skip with the reason; where the
environment variable `CI` is set, that is a failure.
"""

import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import transformers

_PACKAGE = "transformers_common_tests"
_DOWNLOAD_SECONDS = 300


class _Unavailable(Exception):
    """Why the tests cannot be had."""


def load_common_tests(module: str) -> ModuleType:
    """
    The module of transformers' tests with this name, such as `"test_modeling_common"`. Called at the top of a test
    module, which is skipped as a whole (or fails, under CI) where the tests cannot be had.
    """
    try:
        folder = _fetch_once()
    except _Unavailable as reason:
        message = f"transformers' own tests, version {transformers.__version__}, cannot be had: {reason}"
        if os.environ.get("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message, allow_module_level=True)
    if _PACKAGE not in sys.modules:
        _make_package(folder)
    with warnings.catch_warnings():
        # They mark what needs which hardware; we select by name.
        warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)
        return importlib.import_module(f"{_PACKAGE}.{module}")


def _fetch_once() -> Path:
    """The folder with transformers' `tests/*.py`."""
    cache = os.environ.get("HCMI_TEST_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "hcmi", "tests")
    folder = Path(cache).expanduser() / f"transformers-{transformers.__version__}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            unpacked = Path(scratch, "tests")
            unpacked.mkdir()
            _unpack(_download(scratch), unpacked)
            # transformers imports this folder as a package, to look whether it is there.
            Path(unpacked, "__init__.py").touch()
            unpacked.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # another process may have been faster
            raise _Unavailable(error) from error
    return folder


def _download(folder: str) -> Path:
    # A source distribution only, and only this one: neither its dependencies nor its build tools.
    options = ["--no-deps", "--no-binary", "transformers", "--no-build-isolation", "--retries", "1", "--quiet"]
    wanted = f"transformers=={transformers.__version__}"
    try:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, "--dest", folder, wanted],
            check=True,
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise _Unavailable(f"pip took longer than {_DOWNLOAD_SECONDS} seconds") from error
    except subprocess.CalledProcessError as error:
        last_line = (error.stderr.strip() or "no message").splitlines()[-1]
        raise _Unavailable(f"pip download failed: {last_line}") from error
    found = list(Path(folder).glob("transformers-*.tar.gz"))
    if len(found) != 1:
        raise _Unavailable(f"pip downloaded {os.listdir(folder)} instead of one transformers-*.tar.gz")
    return found[0]


def _unpack(archive: Path, folder: Path) -> None:
    """`tests/*.py` of the archive, flat."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if member.isfile() and len(parts) == 3 and parts[1] == "tests" and parts[2].endswith(".py"):
                content = tar.extractfile(member)
                assert content is not None
                Path(folder, parts[2]).write_bytes(content.read())
    if not Path(folder, "test_modeling_common.py").exists():
        raise _Unavailable(f"{archive.name} has no tests/test_modeling_common.py")


def _make_package(folder: Path) -> None:
    """Makes the folder importable; what the modules import from folders that no distribution has gets a stand-in."""
    package = _module(_PACKAGE)
    package.__path__ = [str(folder)]
    # Exporting to other runtimes and generation are no business of a retrieval model; the last is about plain configs,
    # which HCMI's, being composite, is not.
    for name in ("exporters", "generation", "utils"):
        _module(f"{_PACKAGE}.{name}").__path__ = []
    _module(f"{_PACKAGE}.exporters.test_export", ExportTesterMixin=type("ExportTesterMixin", (), {}))
    _module(f"{_PACKAGE}.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
    _module(f"{_PACKAGE}.utils.test_configuration_utils", config_common_kwargs={})
    _module("fetch_hub_objects_for_ci", url_to_local_path=lambda url: url)


def _module(name: str, **content: object) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module
    return module
