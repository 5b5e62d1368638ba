"""HCMIProcessor: videos and sentences become what HCMIModel takes."""

import warnings
from functools import partial
from typing import Any, Literal, TypedDict

import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.tokenization_utils_base import LARGE_INTEGER

from .frame_resizing import FrameSettings, normalize_frames, resize_frames
from .frame_sampling import Sampling, distinct, segment_times
from .frames_in_memory import is_frames
from .video_reading import MAX_DURATION, MAX_FRAME_PIXELS, VideoFrames, read_frames

# CLIP's text length, for a tokenizer that knows no limit.
_TEXT_LENGTH = 77


class HCMIVideosKwargs(TypedDict, total=False):
    """Options for videos in a call of `HCMIProcessor`, besides the image processor's own (`size`, `do_normalize`, ...).

    Attributes:
        start, end: seconds; the stretch of each video to look at, one number for all or a list with one for each
            (None: to the video's own start or end).
        sampling: "uniform", the middle of each of `num_frames` equal segments, or "random", one random moment of each.
        seed: of the random sampling; one for all videos (each draws its own moments), or a list with one for each.
        views: 1 or 2 independent samples of the same stretch, decoded in one pass; 2 for label denoising. With uniform
            sampling both are the same.
        num_frames: frames a video instead of the processor's `frames_per_video`.
        uint8: gives the frames in uint8 and leaves rescaling and normalisation to the model.
        video_backend: "auto", "pyav" or "torchcodec": how files are decoded.
        strict: raises for a file that is broken in the middle, instead of a warning and what can be read of it.
        input_fps: frames a second of videos given as frames, one number or a list; 1 by default.
    """

    start: int | float | list | None
    end: int | float | list | None
    sampling: Literal["uniform", "random"]
    seed: int | list | None
    views: int
    num_frames: int | None
    uint8: bool
    video_backend: Literal["auto", "pyav", "torchcodec"]
    strict: bool
    input_fps: int | float | list


class HCMIProcessorKwargs(ProcessingKwargs, total=False):
    """All options of a call, with their defaults."""

    # A TypedDict may neither narrow a field nor hold a value; transformers asks for both.
    videos_kwargs: HCMIVideosKwargs  # type: ignore[misc]
    _defaults = {  # type: ignore[misc]
        "text_kwargs": {"padding": True, "truncation": True}
    }


class HCMIProcessor(ProcessorMixin):
    r"""Videos and sentences to tensors: an image processor's settings for the frames, a tokenizer for the text.

    A video is one of
    - a path (`str` or `Path`), a `file://`, `http://` or `https://` URL (fetched whole, with limits of time and size);
    - the bytes of a file, or a binary file object (read from its beginning);
    - frames: a list of PIL images; an array or tensor (F, 3, H, W) or (F, H, W, 3), uint8 or floating-point in 0..1
      (where W = 3 it is the first), or a list of frames (3, H, W) or (H, W, 3); they last 1 / `input_fps` seconds each;
    - a value of a `datasets` Video column: the dict of `path` and `bytes`, or a torchcodec `VideoDecoder`.
    `videos` is one of these or a list of them; (B, F, 3, H, W) and (B, F, H, W, 3) are lists of B videos.

    Args:
        image_processor: a `CLIPImageProcessor` or another with its kind of settings (resize, centre crop, rescale,
            normalise); settings that frames do not support are refused when frames are prepared.
        tokenizer: pads to the longest text and truncates to its `model_max_length` by default (77 tokens where it has
            none); a warning says how many texts were truncated.
        frames_per_video: F.
        max_frame_pixels, max_duration: limits, in pixels and seconds, against files that unpack to more than memory
            or patience can take.
    """

    valid_processor_kwargs = HCMIProcessorKwargs  # type: ignore[assignment]

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        frames_per_video=12,
        max_frame_pixels=MAX_FRAME_PIXELS,
        max_duration=MAX_DURATION,
    ):
        if not frames_per_video >= 1:
            raise ValueError(f"frames_per_video must be at least 1, not {frames_per_video}")
        super().__init__(image_processor, tokenizer)
        self.frames_per_video = frames_per_video
        self.max_frame_pixels = max_frame_pixels
        self.max_duration = max_duration

    @property
    def video_processor(self) -> Any:
        """The base class looks here for the options that frames take: those of the image processor."""
        return self.image_processor

    @property
    def model_input_names(self) -> list[str]:
        """Names of the outputs for text and videos."""
        return [*self.tokenizer.model_input_names, "pixel_values_videos", "video_mask", "timestamps", "video_spans"]

    def __call__(
        self, text: str | list[str] | None = None, videos: Any = None, **kwargs: Unpack[HCMIProcessorKwargs]
    ) -> BatchFeature:
        """Prepares texts, videos or both; they need not be equally many.

        Args:
            text: a text or a list of T texts.
            videos: a video or a list of B videos.
            kwargs: options of the tokenizer, of the image processor, and those of `HCMIVideosKwargs`;
                `return_tensors="pt"` for tensors.

        Returns:
            For text `input_ids` and `attention_mask` (T, L). For videos, with F = `frames_per_video`:
            - `pixel_values_videos` (B, F, 3, h, w): float32, normalised; or uint8; 0 where the mask is False;
            - `video_mask` (B, F) bool: False where a video has fewer than F frames to show;
            - `timestamps` (B, F) float64: when each frame begins, in seconds; NaN where the mask is False;
            - `video_spans` (B, 2) float64: start and end in seconds of the stretch that the frames stand for;
            - with `views=2` also `second_pixel_values_videos`, `second_video_mask`, `second_timestamps`.

        Raises:
            VideoReadError: for a video that cannot be read.
            ValueError: for options that do not fit.
        """
        batch = super().__call__(text=text, videos=videos, **kwargs)
        if text is not None:
            options = self._merge_kwargs(
                self.valid_processor_kwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs
            )["text_kwargs"]
            self._warn_of_truncation([text] if isinstance(text, str) else text, options)
        return batch

    def resize_frames(self, frames: torch.Tensor, **overrides: Any) -> torch.Tensor:
        """Frames (..., 3, H, W) uint8 of any size to the model's size (..., 3, h, w) uint8; for caches of frames."""
        return resize_frames(frames, FrameSettings.of(self.image_processor, overrides))

    def _merge_kwargs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        merged = super()._merge_kwargs(*args, **kwargs)
        options = merged["text_kwargs"]
        no_limit = options.get("max_length") is None and getattr(self.tokenizer, "model_max_length", 0) > LARGE_INTEGER
        if no_limit and options.get("truncation"):
            options["max_length"] = _TEXT_LENGTH
        return merged

    def _process_videos(self, videos: Any, **kwargs: Any) -> tuple[dict[str, torch.Tensor], list]:
        videos = _list_of_videos(videos)
        if not videos:
            raise ValueError("videos is an empty list")
        options = {name: kwargs.pop(name) for name in HCMIVideosKwargs.__annotations__ if name in kwargs}
        settings = FrameSettings.of(self.image_processor, kwargs)
        count = self.frames_per_video if options.get("num_frames") is None else options["num_frames"]
        if count < 1:
            raise ValueError(f"num_frames must be at least 1, not {count}")
        views = options.get("views", 1)
        if views not in (1, 2):
            raise ValueError(f"views must be 1 or 2, not {views}")
        each = {name: _one_each(name, options.get(name), len(videos)) for name in ("start", "end", "input_fps")}
        seeds = _seeds(options.get("seed"), len(videos))
        clips = []
        for index, video in enumerate(videos):
            stretch = {name: values[index] for name, values in each.items() if values[index] is not None}
            times = _SegmentTimes(count, options.get("sampling", "uniform"), seeds[index], views)
            clips.append(self._read(video, times, settings, options, stretch))

        prepared: dict[str, torch.Tensor] = {}
        for view, prefix in enumerate(("", "second_")[:views]):
            shown = [clip.shown[view * count : (view + 1) * count].tolist() for clip in clips]
            rows = [_padded(clip, distinct(indices), count) for clip, indices in zip(clips, shown, strict=True)]
            pixels, mask, timestamps = (torch.stack(column) for column in zip(*rows, strict=True))
            prepared[f"{prefix}pixel_values_videos"] = (
                pixels if options.get("uint8") else normalize_frames(pixels, settings).where(_over(mask), 0.0)
            )
            prepared |= {f"{prefix}video_mask": mask, f"{prefix}timestamps": timestamps}
        prepared["video_spans"] = torch.tensor([clip.span for clip in clips], dtype=torch.float64)
        return prepared, []

    def _read(self, video: Any, times: Any, settings: FrameSettings, options: dict, stretch: dict) -> VideoFrames:
        return read_frames(
            video,
            times,
            convert=partial(resize_frames, settings=settings),
            backend=options.get("video_backend", "auto"),
            strict=options.get("strict", False),
            max_frame_pixels=self.max_frame_pixels,
            max_duration=self.max_duration,
            **stretch,
        )

    def _warn_of_truncation(self, texts: list[str], options: dict[str, Any]) -> None:
        """One warning a call: how many texts lost their end, since nothing else would show it."""
        if not options.get("truncation"):
            return
        limit = options.get("max_length") or self.tokenizer.model_max_length
        special = options.get("add_special_tokens", True)
        ids = self.tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]
        longest, cut = max(map(len, ids), default=0), sum(len(row) > limit for row in ids)
        if cut:
            warnings.warn(
                f"{cut} of {len(texts)} texts were cut to {limit} tokens (the longest has {longest})", stacklevel=3
            )


class _SegmentTimes:
    """The times of one video's views, for `read_frames`: each view draws for itself."""

    def __init__(self, count: int, sampling: Sampling, seed: str | None, views: int):
        self.count, self.sampling, self.seed, self.views = count, sampling, seed, views

    def __call__(self, start: float, end: float) -> list[float]:
        seeds = [None if self.seed is None else f"{self.seed}-{view}" for view in range(self.views)]
        return [time for seed in seeds for time in segment_times(start, end, self.count, self.sampling, seed)]


def _list_of_videos(videos: Any) -> list[Any]:
    """`videos` as a list: a single video, whatever its kind, is a list of one; five dimensions are a batch."""
    if isinstance(videos, (list, tuple)) and not is_frames(videos):
        return list(videos)
    if is_frames(videos):
        dimensions = getattr(videos[0], "ndim", 3) + 1 if isinstance(videos, (list, tuple)) else videos.ndim
        return list(videos) if dimensions == 5 else [videos]
    return [videos]


def _one_each(name: str, value: Any, count: int) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} values for {count} videos")
    return list(value)


def _seeds(seed: int | list | None, count: int) -> list[str | None]:
    """A seed for each video: one for all is told apart by the video's place, so that videos draw independently."""
    if seed is None:
        return [None] * count
    if isinstance(seed, (list, tuple)):
        return [None if own is None else str(own) for own in _one_each("seed", seed, count)]
    return [f"{seed}-{index}" for index in range(count)]


def _padded(clip: VideoFrames, chosen: list[int], count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Chosen frames (count, 3, h, w) uint8, mask (count,) and timestamps (count,), padded behind."""
    frames = clip.frames.new_zeros(count, *clip.frames.shape[1:])
    timestamps = torch.full((count,), torch.nan, dtype=torch.float64)
    frames[: len(chosen)] = clip.frames[chosen]
    timestamps[: len(chosen)] = clip.timestamps[chosen]
    return frames, torch.arange(count) < len(chosen), timestamps


def _over(mask: torch.Tensor) -> torch.Tensor:
    return mask[..., None, None, None]
