"""A local web server for tests of downloads: plain HTTP, and a proxy that replaces every https server."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from urllib.parse import parse_qs, urlsplit

HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"
QUOTA_PAGE = (
    b'<html><p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></html>'
)
REPOSITORY_COMMIT = "0" * 40
DRIVE_CONTENT = "drive.usercontent.google.com"


class FakeWeb(ThreadingHTTPServer):
    """``files``: content by path, or by host and path behind the proxy. ``plans``: per path, what goes wrong with
    the next requests: a number = bytes after which the connection closes, "stall" = sends half and waits, "whole" =
    ignores Range, "503" = a status. ``lengths``, ``stated_hashes``: false headers by path.
    ``drive``: name and content by id; without a name the content is a page. ``drive_folders``: ids by name, by id.
    ``asked``: every request as (path, Range header).
    """

    daemon_threads = True
    request_queue_size = 50

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.plans: dict[str, list[int | str]] = defaultdict(list)
        self.lengths: dict[str, int] = {}
        self.stated_hashes: dict[str, str] = {}
        self.drive: dict[str, tuple[str, bytes]] = {}
        self.drive_folders: dict[str, dict[str, str]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.go_on = threading.Event()
        self.tls: SSLContext | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self, path: str) -> list[str | None]:
        return [asked_range for asked_path, asked_range in self.asked if asked_path == path]


@contextmanager
def serve() -> Iterator[FakeWeb]:
    with FakeWeb() as web:
        threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield web
        finally:
            web.go_on.set()
            web.shutdown()


def certify(web: FakeWeb, folder: Path, hosts: list[str]) -> Path:
    """Let the proxy speak for these hosts; returns the certificate that clients have to trust."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = ",".join(f"DNS:{host}" for host in hosts)
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests"]
    command += ["-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    web.tls = SSLContext(PROTOCOL_TLS_SERVER)
    web.tls.load_cert_chain(certificate, key)
    return certificate


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeWeb
    host = ""

    def do_CONNECT(self) -> None:
        assert self.server.tls is not None
        self.host = self.path.partition(":")[0]
        self.send_response(200)
        self.end_headers()
        self.rfile.close()
        self.wfile.close()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        if self.host == "drive.google.com" and "folder" in address.path:
            self.list_folder(query["id"])
        elif self.host.endswith("google.com"):
            self.answer_as_drive(query)
        elif (path := self.host + address.path) in self.server.files:
            content = self.server.files[path]
            digest = hashlib.sha256(content).hexdigest()
            stated = f'"{self.server.stated_hashes.get(path, digest)}"'
            of_hub = {"X-Repo-Commit": REPOSITORY_COMMIT, "X-Linked-Etag": stated} if "/resolve/" in path else {}
            self.send(path, content, {"ETag": f'"{digest}"', **of_hub}, with_body)
        else:
            self.send_whole(404, b"nothing here")

    def answer_as_drive(self, query: dict[str, str]) -> None:
        """Large files follow a confirmation page."""
        name, content = self.server.drive.get(query["id"], ("", b""))
        if not name:
            self.send_whole(200, content or b"<html>no such file</html>")
        elif "confirm" not in query:
            inputs = "".join(
                f'<input type="hidden" name="{name}" value="{value}">'
                for name, value in {"id": query["id"], "confirm": "t"}.items()
            )
            form = f'<form id="download-form" action="https://{DRIVE_CONTENT}/download">{inputs}</form>'
            self.send_whole(200, form.encode())
        else:
            headers = {"Content-Disposition": f'attachment; filename="{name}"', "ETag": f'"{query["id"]}"'}
            self.send(query["id"], content, headers, with_body=True)

    def list_folder(self, folder_id: str) -> None:
        rows = []
        for name, entry in self.server.drive_folders[folder_id].items():
            is_folder = entry in self.server.drive_folders
            kind = f"drive/folders/{entry}" if is_folder else f"file/d/{entry}/view"
            rows.append(f'<a href="https://drive.google.com/{kind}">{name}</a>')
        self.send_whole(200, f"<html><title>folder</title>{''.join(rows)}</html>".encode())

    def send(self, path: str, content: bytes, headers: dict[str, str], with_body: bool) -> None:
        asked_range = self.headers.get("Range")
        if with_body:
            self.server.asked.append((path, asked_range))
        plan = self.server.plans[path].pop(0) if with_body and self.server.plans[path] else None
        if isinstance(plan, str) and plan.isdigit():
            self.send_whole(int(plan), b"")
            return
        start = int(asked_range.removeprefix("bytes=").rstrip("-")) if asked_range and plan != "whole" else 0
        if start and self.headers.get("If-Range", headers.get("ETag")) != headers.get("ETag"):
            start = 0
        if start >= len(content) > 0:
            self.send_whole(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(self.server.lengths.get(path, len(content) - start)))
        self.end_headers()
        if with_body:
            self.send_body(content[start:], plan)

    def send_body(self, content: bytes, plan: int | str | None) -> None:
        if plan == "stall":
            self.wfile.write(content[: len(content) // 2])
            self.server.go_on.wait(20)
        else:
            self.wfile.write(content[:plan] if isinstance(plan, int) else content)
        self.close_connection = plan is not None

    def send_whole(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Keep the tests' output free of requests."""
