"""A small random model with its processor, saved as a user would, and small videos to search with it."""

from pathlib import Path

import av
import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import CLIPImageProcessor, PreTrainedTokenizerFast

from hcmi.modeling_hcmi import HCMIConfig, HCMIModel
from hcmi.processing import HCMIProcessor

WORDS = ["a", "red", "blue", "green", "ring", "square", "slides", "left", "right", "grows", "then", "two"]


def save_tiny_hcmi(folder: Path, frames_per_video: int = 6) -> str:
    """A random model for 32x32 frames and texts of `WORDS`; its weights are far enough apart to rank by."""
    torch.manual_seed(0)
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **names)
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = HCMIConfig(
        text_config=tower | ids | {"vocab_size": len(vocabulary), "max_position_embeddings": 16},
        vision_config=tower | {"image_size": 32, "patch_size": 8},
        projection_dim=24,
        max_frames=8,
        frames_per_clip=2,
        initializer_factor=3.0,
    )
    HCMIModel(config).save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    HCMIProcessor(pictures, fast, frames_per_video=frames_per_video).save_pretrained(folder)
    return str(folder)


def write_video(path: Path, frames: int, seed: int = 0) -> str:
    """An MP4 file of `frames` pictures of coloured squares, 64x48, ten a second, all drawn from the seed."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            picture = np.kron(random.integers(0, 255, (3, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


def write_mixed_folder(folder: Path) -> Path:
    """Two readable videos in sub-folders, a broken one, and files that are no videos."""
    write_video(folder / "b.mp4", frames=10, seed=1)
    write_video(folder / "deeper" / "a.MP4", frames=12, seed=2)
    (folder / "deeper" / "broken.avi").write_bytes(b"nothing" * 99)
    (folder / "notes.txt").write_text("no video")
    (folder / "._b.mp4").write_bytes(b"left by another system")
    return folder
