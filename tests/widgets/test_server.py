"""The local server, asked over real sockets: what it gives, and what it refuses."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsi_mivpg.errors import OutputError, TextsError, ViewError
from wsi_mivpg.reports import read_jsonl, write_jsonl
from wsi_mivpg.widgets.server import Server, serve


@pytest.fixture(scope="module")
def server(case_folder: Path) -> Iterator[Server]:
    with serve(case_folder, 0) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, headers=headers)
    reply = connection.getresponse()
    try:
        return reply.status, reply.headers, reply.read()
    finally:
        connection.close()


def raw(server: Server, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_it_gives_the_list_of_cases_a_case_its_scene_and_its_tiles(server: Server):
    status, _, index = ask(server, "/")
    assert status == 200
    assert b'href="case/0/"' in index
    assert ask(server, "/case/0/")[0] == 200
    status, headers, scene = ask(server, "/case/0/answer/scene")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert len(json.loads(scene)["slides"]) == 2
    status, headers, tile = ask(server, "/case/0/answer/tile/1/0/0/0")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert tile.startswith(b"\xff\xd8")


def test_the_list_shows_no_sentence_that_is_not_assessable(case_folder: Path, tmp_path: Path):
    report = read_jsonl(case_folder / "reports.jsonl")[0]
    held_back = report.sentences[0].model_copy(update={"assessable": False})
    write_jsonl(tmp_path / "reports.jsonl", [report.model_copy(update={"sentences": (held_back,)})])
    with serve(tmp_path, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        index = ask(server, "/")[2].decode()
        server.shutdown()
        thread.join()
    assert held_back.text not in index
    assert "[Not assessable with confidence.]" in index


def test_it_listens_on_this_machine_alone(server: Server):
    assert server.server_address[0] == "127.0.0.1"


def test_head_gives_the_headers_and_no_body(server: Server):
    status, headers, body = ask(server, "/", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_other_methods_are_refused(server: Server, method: str):
    status, headers, _ = ask(server, "/", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/reports.jsonl",
        "/evidence/case.h5",
        "/slides/",
        "/../../../../etc/passwd",
        "/case/0/../../reports.jsonl",
        "/case/0/answer/../../../reports.jsonl",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/case/0/answer/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/case/0/answer/tile/0/0/0/%2e%2e",
        "/..%5c..%5cetc%5cpasswd",
        "//etc/passwd",
        "/case/-1/",
        "/case/1/",
        "/case/0/answer/",
        "/case/99999999999999999999/",
        "/case/%00/",
        "/viewer.js/",
        "/assets/",
        "/case/",
    ],
)
def test_no_other_path_leads_to_any_file_or_listing(server: Server, path: str):
    status, _, body = ask(server, path)
    assert (status, body) == (404, b"there is nothing here")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "127.0.0.1:1", ""]
)
def test_a_page_whose_name_was_made_to_point_here_gets_nothing(server: Server, host: str):
    status, _, body = ask(server, "/case/0/answer/scene", Host=host.format(port=server.server_port))
    assert status == 421
    assert b"slides" not in body


def test_a_request_without_a_host_or_with_two_gets_nothing(server: Server):
    own = f"Host: 127.0.0.1:{server.server_port}\r\n".encode()
    assert b" 421 " in raw(server, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").split(b"\r\n")[0]
    assert b" 421 " in raw(server, b"GET / HTTP/1.1\r\n" + own + b"Host: evil.example\r\n\r\n").split(b"\r\n")[0]
    assert b" 200 " in raw(server, b"GET / HTTP/1.1\r\n" + own + b"Connection: close\r\n\r\n").split(b"\r\n")[0]


@pytest.mark.parametrize("path", ["/", "/case/0/", "/viewer.js", "/nothing"])
def test_every_answer_forbids_frames_foreign_scripts_and_other_sites(server: Server, path: str):
    headers = ask(server, path)[1]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers


def test_files_that_lead_out_of_the_folder_are_refused(case_folder: Path, tmp_path: Path):
    report = read_jsonl(case_folder / "reports.jsonl")[0]
    evidence = case_folder / "evidence" / "case.h5"
    out = tmp_path / "out"
    out.mkdir()
    (out / "link.h5").symlink_to(evidence)
    for name in (str(evidence), "link.h5", f"../{evidence.relative_to('/')}"):
        write_jsonl(out / "reports.jsonl", [report.model_copy(update={"evidence": name})])
        with serve(out, 0) as server:
            if (out / name).exists():
                with pytest.raises(ViewError, match="outside of"):
                    server.cases.scene(0)
    (out / "reports.jsonl").unlink()
    (out / "reports.jsonl").symlink_to(case_folder / "reports.jsonl")
    with pytest.raises(ViewError, match="outside of"):
        serve(out, 0)


def test_a_report_cannot_make_this_machine_ask_an_address(case_folder: Path, tmp_path: Path):
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.5)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/slide.tiff"
        report = read_jsonl(case_folder / "reports.jsonl")[0]
        slides = tuple(slide.model_copy(update={"path": address}) for slide in report.slides)
        write_jsonl(tmp_path / "reports.jsonl", [report.model_copy(update={"slides": slides, "evidence": None})])
        with serve(tmp_path, 0) as server:
            assert all(slide.slide is None for slide in server.cases.scene(0).slides)
        with pytest.raises(TimeoutError):
            asked.append(listening.accept())
    assert not asked


def test_what_cannot_be_served_is_a_clear_error(case_folder: Path, tmp_path: Path):
    with pytest.raises(TextsError, match=r"reports\.jsonl"):
        serve(tmp_path, 0)
    write_jsonl(tmp_path / "reports.jsonl", [])
    with pytest.raises(ViewError, match="no report in it"):
        serve(tmp_path, 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=rf"cannot listen on 127\.0\.0\.1:{port}.*another --port"):
            serve(case_folder, port)


def test_the_command_prints_its_address_answers_and_ends_with_ctrl_c(case_folder: Path):
    command = [sys.executable, "-m", "wsi_mivpg.cli.main", "view", str(case_folder), "--no-browser"]
    # A shell's background jobs ignore Ctrl-C, and what they start does too.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", address)
        assert found, address
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
        connection.request("GET", "/case/0/")
        assert connection.getresponse().status == 200
        os.kill(process.pid, signal.SIGINT)  # while a connection is open
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in errors
