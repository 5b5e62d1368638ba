"""A published model, loaded in processes of their own: with this package, without it, and without a network."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hub_client import environment, point_client_at, run_fresh
from hub_server import serve_hub
from hub_state import Hub
from huggingface_hub import HfApi
from saved_hcmi import save_tiny_hcmi, write_video
from transformers import BertConfig, BertModel

from hcmi.modeling_hcmi import HCMIModel
from hcmi.processing import HCMIProcessor
from hcmi.retrieval import HCMIRetrievalPipeline
from hcmi.train.publishing import publish

NAME = "tester/tiny"
QUERIES = ["a red ring slides left", "two blue square grows"]

OUTPUTS = """
import json, re, sys
import torch

def outputs(model, processor, videos, queries):
    inputs = processor(text=queries, videos=videos, return_tensors="pt")
    with torch.inference_mode():
        text = model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
        video = model.get_video_features(inputs["pixel_values_videos"], inputs["video_mask"])
        scores = model.score(text, video)
    tensors = (text.words, text.pooler_output, video.clips, video.pooler_output, scores.frame_word, scores.combined)
    return [tensor.flatten().tolist() for tensor in tensors]

def message(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def run_card(card):
    names = {}
    for block in re.findall(r"```python\\n(.*?)```", card, flags=re.DOTALL):
        if "from hcmi" not in block or "hcmi" in sys.modules:
            exec(block, names)
    return names

VIDEOS, QUERIES, NAME, MODE = ["a.mp4", "b.mp4"], *json.loads(sys.argv[1])
found = {}
"""

WITH_THE_PACKAGE = """
from hcmi import HCMIModel, HCMIProcessor, HCMIRetrievalPipeline
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

model, processor = HCMIModel.from_pretrained(NAME), HCMIProcessor.from_pretrained(NAME)
found["hcmi"] = outputs(model, processor, VIDEOS, QUERIES)
model, processor = AutoModel.from_pretrained(NAME), AutoProcessor.from_pretrained(NAME)
assert (type(model), type(processor)) == (HCMIModel, HCMIProcessor)
found["auto"] = outputs(model, processor, VIDEOS, QUERIES)
find = pipeline("text-video-retrieval", model=NAME)
assert type(find) is HCMIRetrievalPipeline
found["pipeline"] = find(QUERIES, videos=VIDEOS)
if MODE == "offline":
    print(json.dumps(found))
    raise SystemExit
older = HCMIModel.from_pretrained(NAME, revision="v1")
found["v1"] = outputs(older, HCMIProcessor.from_pretrained(NAME, revision="v1"), VIDEOS, QUERIES)
found["pipeline v1"] = pipeline("text-video-retrieval", model=NAME, revision="v1")(QUERIES, videos=VIDEOS)
from huggingface_hub import ModelCard
names = run_card(ModelCard.load(NAME).text)
assert type(names["model"]) is HCMIModel and type(names["find"]) is HCMIRetrievalPipeline
found["card"] = names["hits"]

old = HCMIModel.from_pretrained("tester/old")
found["old"] = [old.config.inference_weights, old.config.marginal_margin, old.config.label_denoising]
found["old outputs"] = outputs(old, processor, VIDEOS, QUERIES)
found["private"] = message(HCMIModel.from_pretrained, "tester/secret", token=False)
found["private, no package's class"] = message(AutoModel.from_pretrained, "tester/secret", token=False)
found["nowhere"] = message(HCMIModel.from_pretrained, "tester/nowhere")
found["no revision"] = message(HCMIModel.from_pretrained, NAME, revision="v9")
found["no HCMI"] = message(pipeline, "text-video-retrieval", model="tester/bert")
found["no model"] = message(HCMIModel.from_pretrained, "tester/empty")
found["another model"] = message(HCMIModel.from_pretrained, "tester/bert")
found["no processor"] = message(HCMIProcessor.from_pretrained, "tester/empty")
found["no hierarchy"] = message(AutoModel.from_pretrained, "tester/towers")
for broken in ("truncated", "reshaped", "shortened"):
    found[broken] = message(AutoModel.from_pretrained, f"tester/{broken}")
found["tampered"], found["tampered again"] = [message(AutoModel.from_pretrained, "tester/tampered") for _ in "12"]

from datasets import load_dataset
found["data set"] = load_dataset("tester/captions", split="train").to_list()
print(json.dumps(found))
"""

WITHOUT_THE_PACKAGE = """
assert (message(__import__, "hcmi") or "").startswith("ModuleNotFoundError")
from transformers import AutoModel, AutoProcessor, pipeline

trust = {"trust_remote_code": True}
model, processor = AutoModel.from_pretrained(NAME, **trust), AutoProcessor.from_pretrained(NAME, **trust)
found["auto"] = outputs(model, processor, VIDEOS, QUERIES)
find = pipeline("text-video-retrieval", model=NAME, **trust)
found["pipeline"] = find(QUERIES, videos=VIDEOS)
find.save_pretrained(f"saved {MODE}")
found["saved"] = pipeline("text-video-retrieval", model=f"saved {MODE}", **trust)(QUERIES, videos=VIDEOS)
found["skipped"] = len(find.encode_videos([*VIDEOS, "nowhere.mp4"], on_error="skip"))
if MODE == "online":
    pushed = AutoModel.from_pretrained("tester/pushed", **trust)
    found["pushed"] = outputs(pushed, AutoProcessor.from_pretrained("tester/pushed", **trust), VIDEOS, QUERIES)
    found["piped"] = pipeline("text-video-retrieval", model="tester/piped", **trust)(QUERIES, videos=VIDEOS)
    older = AutoModel.from_pretrained(NAME, revision="v1", **trust)
    found["v1"] = outputs(older, AutoProcessor.from_pretrained(NAME, revision="v1", **trust), VIDEOS, QUERIES)
    find = pipeline("text-video-retrieval", model=NAME, revision="v1", **trust)
    found["pipeline v1"] = find(QUERIES, videos=VIDEOS)
    from huggingface_hub import ModelCard
    found["card"] = run_card(ModelCard.load(NAME).text)["hits"]
    from huggingface_hub import snapshot_download
    find = pipeline("text-video-retrieval", model=snapshot_download(NAME), **trust)
    found["folder"] = find(QUERIES, videos=VIDEOS)
    found["not trusted"] = message(AutoModel.from_pretrained, NAME, trust_remote_code=False)
    found["private"] = message(AutoModel.from_pretrained, "tester/secret", token=False, **trust)
    for broken in ("truncated", "tampered", "towers"):
        found[broken] = message(AutoModel.from_pretrained, f"tester/{broken}", **trust)
found["modules"] = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
print(json.dumps(found))
"""


def draw_all_weights(folder: Path, seed: int) -> HCMIModel:
    """What starts at zero is drawn too, so that every part takes a share in the outputs."""
    model = HCMIModel.from_pretrained(folder)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    return model.eval()


def changed_header(weights: bytes, change) -> bytes:
    """A safetensors file whose description of the tensors is another one."""
    size = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + weights[8 + size :]


def last_bit_changed(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def publish_broken(hub: Hub) -> None:
    """Variants of the published model that nobody should load."""
    good = hub.files(NAME)
    weights = good["model.safetensors"]
    hub.put("tester/truncated", good | {"model.safetensors": weights[:-100]})

    def reshape(header):
        header["text_projection.weight"]["shape"].reverse()

    hub.put("tester/reshaped", good | {"model.safetensors": changed_header(weights, reshape)})
    towers = {name: tensor for name, tensor in safetensors.torch.load(weights).items() if "hierarchy" not in name}
    hub.put("tester/towers", good | {"model.safetensors": safetensors.torch.save(towers, {"format": "pt"})})
    # What arrives is shorter than what was promised, or as long and another file.
    for name, promised, sent in (
        ("tester/shortened", weights + b" ", weights[:-100]),
        ("tester/tampered", last_bit_changed(weights), weights),
    ):
        hub.put(name, good | {"model.safetensors": promised})
        file = hub.model(name).commits[hub.model(name).branches["main"]]["model.safetensors"]
        hub.blobs[file.oid] = sent


def publish_others(hub: Hub, folder: Path) -> None:
    """Repositories of other kinds."""
    good = hub.files(NAME)
    hub.put("tester/secret", good, private=True)
    hub.put("tester/empty", {"README.md": b"Nothing here."})
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=20, **sizes)).save_pretrained(folder / "bert")
    hub.put(
        "tester/bert", {file.name: file.read_bytes() for file in (folder / "bert").iterdir()} | processor_files(good)
    )
    config = json.loads(good["config.json"])
    kept = (
        "architectures",
        "model_type",
        "text_config",
        "vision_config",
        "projection_dim",
        "max_frames",
        "frames_per_clip",
    )
    old = {name: config[name] for name in kept} | {"transformers_version": "5.0.0"}
    hub.put("tester/old", good | {"config.json": json.dumps(old).encode()})


def publish_captions(folder: Path) -> None:
    """A data set, uploaded as a folder."""
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"caption": caption}) + "\n" for caption in QUERIES))
    HfApi().create_repo("tester/captions", repo_type="dataset")
    HfApi().upload_folder(repo_id="tester/captions", repo_type="dataset", folder_path=folder)


def processor_files(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if path.startswith(("processor", "tokenizer"))}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with two videos."""
    folder = tmp_path_factory.mktemp("place")
    for seed, name in enumerate(("a.mp4", "b.mp4")):
        write_video(folder / name, frames=12, seed=seed)
    return folder


@pytest.fixture(scope="module")
def expected() -> dict[str, dict]:
    """Version to what this process made of the same texts and videos, before publishing."""
    return {}


@pytest.fixture(scope="module")
def hub(place, expected):
    """The server, with two versions of a model, and the models that cannot or must not be loaded."""
    with serve_hub() as server, pytest.MonkeyPatch.context() as monkeypatch:
        point_client_at(server, place / "publisher", monkeypatch)
        folder = Path(save_tiny_hcmi(place / "model"))
        for seed, version in ((1, "v1"), (2, "v2")):
            model = draw_all_weights(folder, seed)
            expected[version] = made_here(model, folder, place)
            publish(folder, NAME)
            server.model(NAME).tags[version] = server.model(NAME).branches["main"]
        model.push_to_hub("tester/pushed")
        processor = HCMIProcessor.from_pretrained(folder)
        processor.push_to_hub("tester/pushed")
        HCMIRetrievalPipeline(model, processor).push_to_hub("tester/piped")
        publish_broken(server)
        publish_others(server, place)
        publish_captions(place / "captions")
        shutil.rmtree(folder)
        yield server


def made_here(model: HCMIModel, folder: Path, place: Path) -> dict:
    """Outputs and hits."""
    names: dict = {}
    exec(OUTPUTS.split("VIDEOS, QUERIES")[0], names)
    processor = HCMIProcessor.from_pretrained(folder)
    videos = [str(place / name) for name in ("a.mp4", "b.mp4")]
    hits = HCMIRetrievalPipeline(model, processor)(QUERIES, videos=videos)
    for hit in (hit for ranking in hits for hit in ranking):
        hit["video"] = Path(hit["video"]).name
    return {"outputs": names["outputs"](model, processor, videos, QUERIES), "hits": hits}


def loaded(hub: Hub, place: Path, code: str, home: str, mode: str = "online", **variables: str) -> dict:
    words = json.dumps([QUERIES, NAME, mode])
    package = code is WITH_THE_PACKAGE
    return run_fresh(OUTPUTS + code, environment(hub, place / home, **variables), place, words, package=package)


def loaded_offline(hub: Hub, place: Path, code: str, home: str) -> dict:
    """From the cache that the process before has filled."""
    asked = len(hub.requests)
    found = loaded(hub, place, code, home, "offline", HF_HUB_OFFLINE="1")
    assert len(hub.requests) == asked
    return found


@pytest.fixture(scope="module")
def with_package(hub, place):
    return loaded(hub, place, WITH_THE_PACKAGE, "with")


@pytest.fixture(scope="module")
def offline_with_package(hub, place, with_package):
    return loaded_offline(hub, place, WITH_THE_PACKAGE, "with")


@pytest.fixture(scope="module")
def without_package(hub, place):
    return loaded(hub, place, WITHOUT_THE_PACKAGE, "without")


@pytest.fixture(scope="module")
def offline(hub, place, without_package):
    return loaded_offline(hub, place, WITHOUT_THE_PACKAGE, "without")


def assert_close(found, wanted):
    assert len(found) == len(wanted)
    for own, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(torch.tensor(own), torch.tensor(right), atol=1e-6, rtol=0)


def assert_same_hits(found, wanted):
    assert [[hit["video"] for hit in ranking] for ranking in found] == [[h["video"] for h in own] for own in wanted]
    for ranking, own in zip(found, wanted, strict=True):
        for hit, right in zip(ranking, own, strict=True):
            assert (hit["start"], hit["end"]) == (right["start"], right["end"])
            assert hit["score"] == pytest.approx(right["score"], abs=1e-6)
            assert hit["level_scores"] == pytest.approx(right["level_scores"], abs=1e-6)


@pytest.mark.parametrize("way", ["hcmi", "auto", "old outputs"])
def test_with_the_package_outputs_are_the_same(with_package, expected, way):
    assert_close(with_package[way], expected["v2"]["outputs"])


@pytest.mark.parametrize("way", ["hcmi", "auto"])
def test_offline_the_package_finds_the_same_in_the_cache(offline_with_package, expected, way):
    assert_close(offline_with_package[way], expected["v2"]["outputs"])


@pytest.mark.parametrize("way", ["auto", "pushed"])
def test_without_the_package_outputs_are_the_same(without_package, expected, way):
    assert_close(without_package[way], expected["v2"]["outputs"])


def test_the_pipeline_ranks_alike_everywhere(with_package, without_package, offline, offline_with_package, expected):
    for found in (with_package, without_package, offline, offline_with_package):
        assert_same_hits(found["pipeline"], expected["v2"]["hits"])
    for way in ("folder", "piped", "saved"):
        assert_same_hits(without_package[way], expected["v2"]["hits"])


def test_a_pushed_pipeline_has_the_files_of_a_published_model_but_for_the_card(hub):
    published, pushed = hub.files(NAME), hub.files("tester/piped")
    assert set(pushed) == set(published) and hub.asked("POST", "/tester/piped/commit/") == 1
    assert {path for path in published if pushed[path] != published[path]} == {"README.md"}


def test_revisions_are_told_apart(with_package, without_package, expected):
    older, newer = (expected[version]["outputs"] for version in ("v1", "v2"))
    assert not torch.allclose(torch.tensor(older[-1]), torch.tensor(newer[-1]), atol=1e-3)
    for found in (with_package, without_package):
        assert_close(found["v1"], older)
        assert_same_hits(found["pipeline v1"], expected["v1"]["hits"])


def test_offline_the_cache_is_enough(offline, expected):
    assert_close(offline["auto"], expected["v2"]["outputs"])


def test_without_the_package_no_file_of_it_is_imported(without_package, offline):
    root = Path(__file__).parents[2]
    for found in (without_package, offline):
        files = [Path(file) for file in found["modules"]]
        # The environment itself may lie in the checkout.
        assert not [file for file in files if root in file.parents and Path(sys.prefix) not in file.parents]
        remote = {Path(file).name for file in found["modules"] if "transformers_modules" in file}
        assert {"modeling_hcmi.py", "processing_hcmi.py", "pipeline_hcmi.py", "video_reading.py"} <= remote


def test_without_the_package_unreadable_videos_can_be_skipped(without_package):
    assert without_package["skipped"] == 2


def test_the_cards_code_runs(with_package, without_package, expected):
    best = [expected["v2"]["hits"][0][:1]]
    assert_same_hits([with_package["card"]], best)
    assert_same_hits([without_package["card"]], best)


def test_an_older_configuration_gets_defaults(with_package):
    weights, margin, denoising = with_package["old"]
    assert set(weights.values()) == {1.0} and (margin, denoising) == (0.2, True)


def test_what_was_loaded_is_saved_with_its_code_and_without_the_pipeline(hub, tmp_path):
    HCMIModel.from_pretrained(NAME).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_hcmi.HCMIModel" and "custom_pipelines" not in config
    assert (tmp_path / "modeling_hcmi.py").exists() and not (tmp_path / "pipeline_hcmi.py").exists()


def test_a_data_set_of_the_server_can_be_read(with_package):
    assert with_package["data set"] == [{"caption": caption} for caption in QUERIES]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("private", "tester/secret is not .* private repository, make sure to pass a token"),
        ("private, no package's class", "tester/secret is not .* private repository, make sure to pass a token"),
        ("nowhere", "tester/nowhere is not .* valid model identifier"),
        ("no revision", "v9 is not a valid git identifier"),
        ("no HCMI", "text-video-retrieval needs an HCMIModel, got BertModel"),
        ("no model", "tester/empty has no config.json, no HCMI"),
        ("another model", "ValueError: tester/bert is a model of type 'bert', no HCMI.*from_clip_pretrained"),
        ("no processor", "tester/empty"),
        ("no hierarchy", "ValueError: tester/towers lacks .*from_clip_pretrained"),
        ("truncated", "SafetensorError: .*not fully covered"),
        ("reshaped", "RuntimeError: .*ignore_mismatched_sizes"),
        ("shortened", "OSError: .*Consistency check failed|OSError: .*should be of size"),
        ("tampered", "ValueError: tester/tampered: .*SHA-256"),
        ("tampered again", "ValueError: tester/tampered: .*SHA-256"),
    ],
)
def test_what_cannot_be_loaded_says_so(with_package, case, message):
    assert re.search(message, with_package[case] or "no error", re.DOTALL), with_package[case]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("not trusted", "trust_remote_code=True"),
        ("private", "tester/secret is not .* private repository, make sure to pass a token"),
        ("truncated", "SafetensorError: .*not fully covered"),
        ("tampered", "ValueError: tester/tampered: .*SHA-256"),
        ("towers", "ValueError: tester/towers lacks .*from_clip_pretrained"),
    ],
)
def test_without_the_package_too(without_package, case, message):
    assert re.search(message, without_package[case] or "no error", re.DOTALL), without_package[case]


def test_the_client_finds_a_changed_file_of_the_cache(hub, place, offline_with_package):
    cache = place / "with" / "hub"
    check = {"cache_dir": cache, "revision": hub.model(NAME).branches["main"]}
    assert not HfApi().verify_repo_checksums(NAME, **check).mismatches
    oid = hub.model(NAME).commits[check["revision"]]["model.safetensors"].oid
    blob = cache / "models--tester--tiny" / "blobs" / oid
    blob.write_bytes(last_bit_changed(blob.read_bytes()))
    assert [found["path"] for found in HfApi().verify_repo_checksums(NAME, **check).mismatches] == ["model.safetensors"]
