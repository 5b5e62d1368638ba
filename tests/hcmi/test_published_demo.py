"""The demo's model goes to the Hub, nothing of it stays here, and it finds its videos where this package is not."""

import json
import shutil

from demo_model import demo_model, ten_stories
from hub_client import environment, point_client_at, run_fresh
from hub_server import serve_hub

from hcmi.train.publishing import publish

NAME = "tester/demo"

FIND = """
import json, sys
from transformers import pipeline
captions, videos = json.loads(sys.argv[1])
find = pipeline("text-video-retrieval", model="tester/demo", trust_remote_code=True)
print(json.dumps([[hit["video"] for hit in hits] for hits in find(captions, videos=videos, top_k=1)]))
"""


def test_a_published_model_finds_the_right_video_for_ten_captions(tmp_path, monkeypatch):
    stories = ten_stories()
    run = tmp_path / "run"
    shutil.copytree(demo_model().parent, run, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    with serve_hub() as hub:
        point_client_at(hub, tmp_path / "publisher", monkeypatch)
        publish(run, NAME, private=True)
        assert "shape_stories, test split" in hub.files(NAME)["README.md"].decode()
        shutil.rmtree(run)
        shutil.rmtree(tmp_path / "publisher", ignore_errors=True)
        words = json.dumps([list(stories.values()), list(stories)])
        found = run_fresh(FIND, environment(hub, tmp_path / "elsewhere"), tmp_path, words, package=False)
        assert hub.asked("GET", f"/{NAME}/resolve/") and hub.asked("GET", "/model.safetensors") == 1
    assert found == [[video] for video in stories] and len(found) == 10
