"""The viewer in a browser: a read-only server on this machine alone, for the reports of one folder.

No part of an address is ever used as a file's name: cases are numbers, and what is read is what the folder's
``reports.jsonl`` names. Other hosts, other methods and anything else that is asked are refused.
"""

import threading
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from wsi_mivpg.errors import OutputError, ViewError, WsiMivpgError
from wsi_mivpg.reports import Report, read_jsonl
from wsi_mivpg.slides.address import is_address
from wsi_mivpg.widgets.bundle import page_script, style
from wsi_mivpg.widgets.gather import gathered
from wsi_mivpg.widgets.scene import Scene

HOST = "127.0.0.1"
_OPEN_CASES = 16
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_HTML, _TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"


class CaseFolder:
    """The reports of a folder, and what the viewer asks for of each.

    Attributes:
        folder: what ``wsi-mivpg report`` wrote.
        reports: the cases, in the order of ``reports.jsonl``.
    """

    def __init__(self, folder: Path) -> None:
        """Read the reports.

        Raises:
            TextsError: they are missing or damaged.
            ViewError: there are none.
        """
        self.folder = folder
        listed = folder / "reports.jsonl"
        self.reports: Sequence[Report] = read_jsonl(within(folder, listed))
        if not self.reports:
            raise ViewError(f"{listed}: no report in it; write some with `wsi-mivpg report`")
        self._opening = threading.Lock()
        self._scene = lru_cache(maxsize=_OPEN_CASES)(self._opened)

    def scene(self, number: int) -> Scene:
        """Return what is shown of a case; the latest are kept open.

        Raises:
            LookupError: there is no such case.
            WsiMivpgError: its evidence cannot be read.
        """
        with self._opening:
            return self._scene(number)

    def _opened(self, number: int) -> Scene:
        report = self.reports[number]
        if report.evidence is not None:  # it could name any file of this machine
            within(self.folder, self.folder / report.evidence)
        # A report from elsewhere must not make this machine ask addresses.
        slides = tuple(
            slide.model_copy(update={"path": None}) if slide.path and is_address(slide.path) else slide
            for slide in report.slides
        )
        return gathered(report=report.model_copy(update={"slides": slides}), folder=self.folder)


def within(folder: Path, path: Path) -> Path:
    """Return a file's true path.

    Raises:
        ViewError: it lies outside of the folder, if only through a link.
    """
    true = path.resolve()
    if not true.is_relative_to(folder.resolve()):
        raise ViewError(f"{path}: it lies outside of {folder}, at {true}, and is not shown; copy it there")
    return true


class Server(ThreadingHTTPServer):
    """Answers the browser on this machine; see `serve`."""

    daemon_threads = True

    def __init__(self, cases: CaseFolder, port: int) -> None:
        self.cases = cases
        super().__init__((HOST, port), _Handler)
        self.hosts = frozenset(f"{name}:{self.server_port}" for name in (HOST, "localhost"))

    @property
    def address(self) -> str:
        """Where to look."""
        return f"http://{HOST}:{self.server_port}/"


def serve(folder: Path, port: int) -> Server:
    """Return a server for a folder's reports that listens; `serve_forever` runs it.

    Args:
        folder: what ``wsi-mivpg report`` wrote.
        port: 0 takes any that is free.

    Raises:
        TextsError: there are no reports.
        OutputError: the port is taken.
    """
    cases = CaseFolder(folder)
    try:
        return Server(cases, port)
    except OSError as problem:
        raise OutputError(f"cannot listen on {HOST}:{port}: {problem.strerror}; choose another --port") from problem


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "wsi-mivpg"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        self._respond()

    def do_HEAD(self) -> None:
        self._respond()

    def __getattr__(self, name: str) -> Any:
        # The standard library looks for `do_<METHOD>` and, where there is none, says 501 with a page of its own.
        if name.startswith("do_"):
            return self._refuse_method
        raise AttributeError(name)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing for each tile."""

    def _refuse_method(self) -> None:
        self.close_connection = True  # a body may follow, which nobody reads
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"this server is read only", {"Allow": "GET, HEAD"})

    def _respond(self) -> None:
        # A page of another site whose name was made to point here (DNS rebinding) still sends its own name.
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            self._send(HTTPStatus.MISDIRECTED_REQUEST, _TEXT, f"only {self.server.address} is served here".encode())
            return
        try:
            kind, body = self._answer([unquote(part) for part in urlsplit(self.path).path.split("/")[1:]])
            self._send(HTTPStatus.OK, kind, body)
        except LookupError:
            self._send(HTTPStatus.NOT_FOUND, _TEXT, b"there is nothing here")
        except WsiMivpgError as problem:
            self._send(HTTPStatus.UNPROCESSABLE_ENTITY, _TEXT, str(problem).encode())

    def _answer(self, parts: list[str]) -> tuple[str, bytes]:
        cases = self.server.cases
        match parts:
            case [""]:
                return _HTML, _page("index.html.j2", reports=cases.reports, folder=cases.folder.resolve().name)
            case ["viewer.js"]:
                return "text/javascript; charset=utf-8", page_script().encode()
            case ["viewer.css"]:
                return "text/css; charset=utf-8", style().encode()
            case ["page.css"]:
                return "text/css; charset=utf-8", _page("page.css")
            case ["case", number, ""] if number.isascii() and number.isdigit() and len(number) < 10:
                return _HTML, _page("case.html.j2", report=cases.reports[int(number)], count=len(cases.reports))
            case ["case", number, "answer", *asked] if number.isascii() and number.isdigit() and len(number) < 10:
                return cases.scene(int(number)).answer("/".join(asked))
        raise LookupError(self.path)

    def _send(self, status: HTTPStatus, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        own = {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in (_HEADERS | own | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


_PAGES = Environment(
    loader=PackageLoader("wsi_mivpg.widgets", "assets"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def _page(name: str, **values: object) -> bytes:
    return _PAGES.get_template(name).render(**values).encode()
