import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from tiny_hcmi import SIZE, tiny_model, tiny_tokenizer
from transformers import CLIPImageProcessor

import hcmi
from hcmi.processing import HCMIProcessor

ROOT = Path(__file__).parents[2]


def output_of(*command: object, **options) -> str:
    """What a command prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", hcmi.__all__)
def test_public_names_can_be_imported(name):
    value = getattr(hcmi, name)
    assert name == "__version__" or value.__name__ == name
    assert name in dir(hcmi)


def test_other_names_do_not_exist():
    with pytest.raises(AttributeError, match="'hcmi' has no attribute 'HCMIVision'"):
        _ = hcmi.HCMIVision
    with pytest.raises(ImportError):
        from hcmi import HCMIVision  # noqa: F401


def test_the_version_is_the_distributions():
    assert hcmi.__version__ == importlib.metadata.version("hcmi")


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, hcmi; print([name for name in ('torch', 'transformers', 'av', 'numpy') if name in sys.modules])"
    assert output_of(sys.executable, "-c", code) == "[]"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    sizes = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    HCMIProcessor(CLIPImageProcessor(**sizes), tiny_tokenizer(), frames_per_video=3).save_pretrained(folder)
    return folder


ORDERS = {
    "the package first": "import hcmi",
    "transformers first": "from transformers import AutoModel, AutoProcessor, pipeline; import hcmi",
    # CLIP's model file imports the Auto classes while it is half imported itself.
    "CLIP in between": "import hcmi; from transformers import CLIPModel",
    "a public name first": "from hcmi import HCMIModel",
}

USE_AUTO_CLASSES = """
import sys
exec(sys.argv[1])
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline
made = [auto.from_pretrained(sys.argv[2]) for auto in (AutoConfig, AutoModel, AutoProcessor)]
made.append(pipeline("text-video-retrieval", model=sys.argv[2]))
import hcmi
assert [type(thing) for thing in made[:3]] == [hcmi.HCMIConfig, hcmi.HCMIModel, hcmi.HCMIProcessor]
print(*(type(thing).__name__ for thing in made))
"""


@pytest.mark.parametrize("order", ORDERS)
def test_transformers_knows_the_package_whatever_is_imported_first(order, model_folder):
    printed = output_of(sys.executable, "-c", USE_AUTO_CLASSES, ORDERS[order], model_folder)
    assert printed == "HCMIConfig HCMIModel HCMIProcessor HCMIRetrievalPipeline"


def modules_of_the_checkout() -> dict[str, Path]:
    """Module name → file, for every module below the folders that pyproject.toml maps."""
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    found = {}
    for package, folder in folders.items():
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = file
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy, because building leaves files beside the sources."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    kept = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values()
    for name in (*kept, "pyproject.toml", "README.md", "LICENSE"):
        for file in sorted((ROOT / name).rglob("*")) if (ROOT / name).is_dir() else [ROOT / name]:
            if file.is_file() and "__pycache__" not in file.parts:
                target = copy / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", out, copy]
    output_of(sys.executable, "-m", "pip", "wheel", *options)
    (built,) = out.glob("hcmi-*.whl")
    return built


def test_the_wheel_holds_every_module_and_no_other_file_than_data(wheel):
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {name for name in files if name.endswith(".py")}
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in sources}
    assert modules == set(modules_of_the_checkout())
    folder = ROOT / "train" / "configs"
    configs = [path.relative_to(folder) for kind in ("yaml", "json") for path in folder.rglob(f"*.{kind}")]
    data = {f"hcmi/train/configs/{name}" for name in configs}
    data |= {"hcmi/train/published_results.yaml", "hcmi/train/model_card.md"}
    page = [path for kind in ("css", "html", "js") for path in (ROOT / "retrieval").rglob(f"*.{kind}")]
    data |= {f"hcmi/{path.relative_to(ROOT)}" for path in page}
    assert files - sources == data


IMPORT_ALL = """
import importlib, sys
for name in sys.argv[2:]:
    assert importlib.import_module(name).__file__.startswith(sys.argv[1]), name
"""


def test_the_wheel_works_away_from_the_checkout(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    # The dependencies come from here. The .pth file of an editable installation is not read from a folder named so.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel]
    output_of(sys.executable, "-m", "pip", *install)

    # Isolated: neither the current folder nor PYTHONPATH is searched.
    output_of(python, "-I", "-c", IMPORT_ALL, site, *sorted(modules_of_the_checkout()), cwd=tmp_path)
    assert output_of(python.parent / "hcmi", "--version", cwd=tmp_path) == f"hcmi {hcmi.__version__}"
