"""A web server on this machine that also answers badly."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def serve(content: bytes) -> Iterator[str]:
    """Serves `content` and yields the address. The path says how it answers:

    /video whole; /chunked without saying how long it is; /moved after a redirection; /missing not; /empty nothing;
    /cut half, and hangs up; /silent never; /trickle a byte now and then; /trickle-headers likewise, before the content.
    """
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            getattr(self, "do_" + self.path.strip("/").replace("-", "_"))()

        def start(self, length: int | None) -> None:
            self.send_response(200)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()

        def do_video(self) -> None:
            self.start(len(content))
            self.wfile.write(content)

        def do_chunked(self) -> None:
            self.start(None)
            self.wfile.write(content)

        def do_moved(self) -> None:
            self.send_response(302)
            self.send_header("Location", "/video")
            self.end_headers()

        def do_missing(self) -> None:
            self.send_error(404)

        def do_empty(self) -> None:
            self.start(0)

        def do_cut(self) -> None:
            self.start(len(content))
            self.wfile.write(content[: len(content) // 2])

        def do_silent(self) -> None:
            release.wait()

        def do_trickle(self) -> None:
            self.start(len(content))
            self.trickle(content)

        def do_trickle_headers(self) -> None:
            self.trickle(b"HTTP/1.0 200 OK\r\n" + b"X-Padding: 1\r\n" * 10_000)

        def trickle(self, data: bytes) -> None:
            try:
                for byte in data:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    if release.wait(0.02):
                        return
            except OSError:
                pass  # the other side has hung up

        def log_message(self, *arguments: object) -> None:
            """Keeps quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        release.set()
        server.shutdown()
        server.server_close()
