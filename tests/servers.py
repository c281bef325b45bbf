"""Small servers for tests of files behind URLs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class HttpServer:
    """Where it listens, and how many bytes of each file it has sent."""

    url: str
    sent: dict[str, int] = field(default_factory=dict)


@contextmanager
def http_server(folder: Path, *, ranges: bool = True) -> Iterator[HttpServer]:
    """Serve the files of a folder, with ranges and entity tags."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            path = folder / self.path.partition("?")[0].lstrip("/")
            if not path.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content, wanted = path.read_bytes(), self.headers.get("Range")
            part, status = content, 200
            if ranges and wanted and (match := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)):
                first, last = int(match[1]), int(match[2] or len(content) - 1)
                part, status = content[first : last + 1], 206
            self.send_response(status)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
            if ranges:
                self.send_header("Accept-Ranges", "bytes")
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
            self.end_headers()
            if with_body:
                server.sent[path.name] = server.sent.get(path.name, 0) + len(part)
                self.wfile.write(part)

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = HttpServer(f"http://127.0.0.1:{listening.server_port}")
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
