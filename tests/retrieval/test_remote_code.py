import ast
from pathlib import Path

import pytest

from hcmi.retrieval.remote_code import remote_code

ROOT = Path(__file__).parents[2]
FOLDERS = ("modeling_hcmi", "processing", "retrieval")


@pytest.fixture(scope="module")
def code() -> dict[str, str]:
    return remote_code("hcmi.retrieval.pipeline_hcmi")


def imports_of(source: str) -> list[ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]


def test_the_pipeline_and_what_it_reaches_lie_side_by_side(code):
    assert {"pipeline_hcmi.py", "encoded_videos.py", "moments_hcmi.py", "features_hcmi.py", "video_reading.py"} <= set(
        code
    )
    for source in code.values():
        assert "hcmi" not in {str(node.module).split(".")[0] for node in imports_of(source) if node.level == 0}
        assert {f"{node.module}.py" for node in imports_of(source) if node.level} <= set(code)


def test_only_imports_across_folders_are_rewritten(code):
    for name, source in code.items():
        (original,) = (ROOT / folder / name for folder in FOLDERS if (ROOT / folder / name).exists())
        lines = set(original.read_text(encoding="utf-8").splitlines())
        assert all(line in lines or line.startswith("from .") for line in source.splitlines())
        if "from hcmi" not in original.read_text(encoding="utf-8"):
            assert source == original.read_text(encoding="utf-8")


def test_names_behind_a_packages_own_imports_are_found(code):
    homes = {alias.name: node.module for node in imports_of(code["encoded_videos.py"]) for alias in node.names}
    assert homes["HCMIVideoFeatures"] == homes["concatenate_features"] == "features_hcmi"


@pytest.mark.parametrize(
    "line", ["from . import other", "from .. import other", "from .sub.other import name", "import hcmi"]
)
def test_imports_without_meaning_there_are_refused(line, tmp_path, monkeypatch):
    (tmp_path / "lone_module.py").write_text(f'"""A module."""\n\n{line}\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"lone_module.py, line 3: only `from"):
        remote_code("lone_module")


def test_two_modules_of_one_name_are_refused(tmp_path, monkeypatch):
    (tmp_path / "lone_module.py").write_text("from hcmi.cli import main\nfrom .cli import other\n")
    (tmp_path / "cli.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"cannot both be cli.py"):
        remote_code("lone_module")
