"""A folder that can be published as a Space on the Hugging Face Hub: the demo, an index that travels, its videos."""

import os
import platform
import shutil
from importlib import import_module
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

from huggingface_hub import SpaceCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from tqdm.auto import tqdm

from hcmi.retrieval.index.errors import VideoIndexError
from hcmi.retrieval.index.video_index import VideoIndex
from hcmi.retrieval.index.window import Window

_APP = '''"""Searches the videos of this folder by text. A Space says where to listen, else it is this machine."""

import os
from pathlib import Path

from hcmi.retrieval import VideoIndex
from hcmi.retrieval.web.demo import serve

with VideoIndex.open(Path(__file__).parent / "index") as index:
    serve(
        index,
        os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    )
'''

_README = """---
{metadata}
---

# {title}

Finds videos by text, and the seconds that answer it, with Hierarchical Cross-Modal Interaction (HCMI). {count} videos,
encoded with {model}.

Everything is in this folder: `index/` the videos' embeddings, `videos/` the videos, `hcmi/` the code. Whoever sees the
Space can watch all of them.

Here: `pip install -r requirements.txt`, then `python app.py`. On the Hub:

```
hf repos create OWNER/NAME --repo-type space --space-sdk gradio
hf upload OWNER/NAME . --repo-type space
```
"""


def write_space(index: VideoIndex, folder: Path, title: str) -> int:
    """
    Writes what a Space needs. A model from the Hub is named; any other is saved in the folder.

    Args:
        index: open.
        folder: an empty one.
        title: of the Space.

    Returns:
        The number of videos.

    Raises:
        VideoIndexError: the index has no videos, or one of them is not there any more.
    """
    places = _places(index)
    hub_name = _hub_name(index.info.model)
    if hub_name is None:
        for part in (index.model, index.processor):
            part.save_pretrained(folder / "model")
    for source, target in tqdm(places.items(), desc="Copying videos", unit="video"):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, folder / target)
    options: dict[str, Any] = {"precision": index.shape.precision, "relative": True, "device": "cpu"}
    with VideoIndex.create(folder / "index", hub_name or folder / "model", **options) as copy:
        for source, target in places.items():
            _copy_windows(index, source, copy, folder / target)
    _write_code(folder)
    _write_readme(folder, title, len(places), hub_name)
    return len(places)


def _places(index: VideoIndex) -> dict[str, Path]:
    """Where the videos that can be found lie, and where each comes to lie in the folder: as they lie to one another."""
    videos = [video.path for video in index if _encoded(index, video.path)]
    if not videos:
        raise VideoIndexError(f"The index {index.path} has no videos that a Space could show.")
    for video in videos:
        if not os.path.isfile(video):
            raise VideoIndexError(
                f"{video} is not there any more. `hcmi remove {index.path} {video}` takes it out of the index."
            )
    common = os.path.commonpath([os.path.dirname(video) for video in videos])
    return {video: Path("videos", os.path.relpath(video, common)) for video in videos}


def _encoded(index: VideoIndex, video: str) -> list[Window]:
    """The windows of a video that can be found."""
    missing = index.windows(video, missing=True)
    return [window for window in index.windows(video) if window not in missing]


def _copy_windows(index: VideoIndex, source: str, copy: VideoIndex, target: Path) -> None:
    windows = _encoded(index, source)
    copy.begin_file(target, index.get(source).file, windows)
    copy.append(index.read(source), [(str(target), window.number) for window in windows])


def _hub_name(model: str) -> str | None:
    """The model's name if it is one on the Hub: not a folder, and not what a model without a name is called."""
    try:
        validate_repo_id(model)
    except HFValidationError:
        return None
    return None if os.path.isdir(model) else model


def _write_code(folder: Path) -> None:
    """The program, this package as far as it needs it, and what that needs."""
    (folder / "app.py").write_text(_APP, encoding="utf-8")
    package = Path(import_module("hcmi").__path__[0])
    (folder / "hcmi").mkdir()
    for file in package.glob("*.py"):
        shutil.copy(file, folder / "hcmi")
    for part in ("modeling_hcmi", "processing", "retrieval"):
        source = import_module(f"hcmi.{part}").__path__[0]
        shutil.copytree(source, folder / "hcmi" / part, ignore=shutil.ignore_patterns("__pycache__"))
    # The package asks for its own version.
    installed = distribution("hcmi")
    facts = folder / f"hcmi-{installed.version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(str(installed.metadata), encoding="utf-8")
    needed = [line for line in installed.requires if "extra ==" not in line]
    (folder / "requirements.txt").write_text("\n".join([*needed, f"gradio=={version('gradio')}", ""]), encoding="utf-8")


def _write_readme(folder: Path, title: str, count: int, hub_name: str | None) -> None:
    metadata = SpaceCardData(
        title=title,
        emoji="🎬",
        colorFrom="red",
        colorTo="yellow",
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version=".".join(platform.python_version_tuple()[:2]),
        app_file="app.py",
        models=[hub_name] if hub_name else None,
    )
    model = f"[{hub_name}](https://huggingface.co/{hub_name})" if hub_name else "the model in `model/`"
    text = _README.format(metadata=metadata.to_yaml(), title=title, count=count, model=model)
    (folder / "README.md").write_text(text, encoding="utf-8")
