"""What a demo shows of a hit: the video, a thumbnail, the explanation, and a clip where the video cannot be played."""

import mimetypes
import os
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_thread
from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from hcmi.retrieval.index.video_index import VideoIndex
from hcmi.retrieval.pictures.explain import explain_hit
from hcmi.retrieval.pictures.explain_picture import picture_of

from .clips import PlayableClips
from .hits import ShownHit, ShownHits

_GONE, _FAILED = 404, 500


class HitMedia:
    """
    Answers `GET /hits/{name}/{part}` for hits that were shown. No path ever comes from a client: names are looked up,
    and what they stand for has to be in the index still.

    Args:
        index: open.
        shown: the hits.
        asking: held while a text is encoded.
    """

    def __init__(self, index: VideoIndex, shown: ShownHits, asking: threading.Lock):
        self.index, self.shown, self.asking = index, shown, asking
        self.clips = PlayableClips()

    def routes(self) -> list[Route]:
        """One for each part."""
        # Whoever watches waits for nobody; reading frames takes its turn, and encoding them even more so.
        watching, drawing, encoding = CapacityLimiter(40), CapacityLimiter(os.cpu_count() or 1), CapacityLimiter(1)
        parts: dict[str, tuple[Callable[[str, ShownHit], Response], CapacityLimiter]] = {
            "video": (self.video, watching),
            "thumbnail": (self.thumbnail, drawing),
            "explanation": (self.explanation, drawing),
            "clip": (self.clip, encoding),
            "clip.mp4": (self.clip_file, watching),
        }
        return [Route(f"/hits/{{name}}/{part}", self._endpoint(*how)) for part, how in parts.items()]

    def video(self, name: str, shown: ShownHit) -> Response:
        """The whole file as it is, or the range of it that was asked for."""
        kind = mimetypes.guess_type(shown.hit.video)[0] or ""
        return FileResponse(
            shown.hit.video, media_type=kind if kind.startswith("video/") else "application/octet-stream"
        )

    def thumbnail(self, name: str, shown: ShownHit) -> Response:
        """The frame in the middle of the moment."""
        return _picture(shown.hit.thumbnail(), "JPEG")

    def explanation(self, name: str, shown: ShownHit) -> Response:
        """Why it was found."""
        if shown.query is None:
            return PlainTextResponse("Only what a text has found is explained.", _GONE)
        with self.asking:
            explanation = explain_hit(self.index, shown.hit, shown.query)
        return _picture(picture_of(explanation), "PNG")

    def clip(self, name: str, shown: ShownHit) -> Response:
        """Makes the moment a file that browsers play; tells at which second of the video it starts and ends."""
        clip = self.clips.make(name, shown.hit)
        return JSONResponse({"start": clip.start, "end": clip.end})

    def clip_file(self, name: str, shown: ShownHit) -> Response:
        """That file."""
        clip = self.clips.get(name)
        if clip is None:
            return PlainTextResponse("This clip was not made, or not kept.", _GONE)
        return FileResponse(clip.path, media_type="video/mp4")

    def _endpoint(self, make: Callable[[str, ShownHit], Response], turns: CapacityLimiter) -> Any:
        async def answer(request: Request) -> Response:
            return await to_thread.run_sync(self._answer, make, request.path_params["name"], limiter=turns)

        return answer

    def _answer(self, make: Callable[[str, ShownHit], Response], name: str) -> Response:
        """What `make` gives; a sentence that can be shown where there is nothing to give."""
        shown = self.shown.get(name)
        if shown is None:
            return PlainTextResponse("The demo was started anew since: search again.", _GONE)
        video = Path(shown.hit.video)
        try:
            if video not in self.index:
                return PlainTextResponse(f"{video.name} is no longer in the index: search again.", _GONE)
            if not video.is_file():
                return PlainTextResponse(f"{video.name} is not there any more: it was moved or deleted.", _GONE)
            return make(name, shown)
        except (ValueError, OSError) as error:
            return PlainTextResponse(str(error).replace(str(video), video.name), _FAILED)


def _picture(image: Image.Image, kind: str) -> Response:
    data = BytesIO()
    image.save(data, kind)
    return Response(data.getvalue(), media_type=f"image/{kind.lower()}")
