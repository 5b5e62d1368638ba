"""What the documentation says to do, done; and what it points at is there."""

import re
from pathlib import Path

import pytest
from saved_hcmi import save_tiny_hcmi, write_video
from tiny_hcmi import tiny_clip

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    save_tiny_hcmi(tmp_path / "runs/shape_stories/model")
    tiny_clip().save_pretrained(tmp_path / "clip")
    for seed, name in enumerate(("a.mp4", "b.mp4")):
        write_video(tmp_path / name, frames=12, seed=seed)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks).replace("openai/clip-vit-base-patch32", "clip")
    names: dict = {}
    exec(code.replace("\nfind(", "\nhits = find("), names)
    assert re.search(r"tensor\(\[\[.*, .*\]\]\)", capsys.readouterr().out), "one text and two videos were scored"
    (hit,) = names["hits"]
    assert set(hit) == {"video", "score", "start", "end", "level_scores"}
    assert names["index"].path == Path("my_index") and names["hit"].video in map(str, tmp_path.glob("*.mp4"))
    assert names["model"].config.inference_weights["video_sentence"] == 1.0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert targets or page.name != "README.md"
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_named_files_exist():
    named = set(
        re.findall(r"`((?:train|modeling_hcmi|processing|retrieval|docs|bench|examples)/[\w./]*)`", _all_text())
    )
    assert len(named) > 5
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_make_has_both_commands():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo:", makefile, flags=re.MULTILINE) and re.search(r"^test:", makefile, flags=re.MULTILINE)


def _all_text() -> str:
    return "\n".join(page.read_text() for page in PAGES)
