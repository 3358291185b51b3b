"""The rig of `benchmarks/extract.py` measures what it says: known sleeps, known memory, known overlaps."""

import sys
import threading
import time
from pathlib import Path

import pytest

from extract_peers.clock import Clock
from extract_peers.process import measure
from extract_peers.report import goals, markdown, median
from extract_peers.tables import PEERS, cuda_tables, tables

FIGURES = {"tiles": 600.0, "wall_s": 20.0, "cpu_s": 30.0, "peak_mb": 1500.0}


def run_python(code: str, folder: Path, limit_s: float = 60.0):
    return measure([sys.executable, "-c", code], {}, folder, limit_s)


def test_memory_of_children_counts_and_what_they_share_counts_once(tmp_path: Path) -> None:
    forked = (
        "import os, time; held = b'x' * 200_000_000; pid = os.fork(); "
        "mine = b'y' * 100_000_000 if pid == 0 else b''; time.sleep(3); "
        "os._exit(0) if pid == 0 else os.waitpid(pid, 0)"
    )
    assert 300 < run_python(forked, tmp_path).peak_mb < 390


def test_wall_and_cpu_time_are_told_apart(tmp_path: Path) -> None:
    slept = run_python("import time; time.sleep(1)", tmp_path)
    assert slept.wall_s > 1.0
    assert slept.cpu_s < 0.7
    worked = run_python("import time\nwhile time.process_time() < 1: pass", tmp_path)
    assert 1.0 <= worked.cpu_s <= worked.wall_s + 0.2


def test_cpu_time_of_children_counts(tmp_path: Path) -> None:
    child = "import time\\nwhile time.process_time() < 1: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{child}'])"
    assert run_python(code, tmp_path).cpu_s >= 1.0


def test_failure_and_its_message_come_back(tmp_path: Path) -> None:
    done = run_python("raise SystemExit('no such slide')", tmp_path)
    assert done.code == 1
    assert "no such slide" in done.errors


def test_what_runs_too_long_is_killed(tmp_path: Path) -> None:
    done = run_python("import time; time.sleep(60)", tmp_path, limit_s=0.5)
    assert done.code != 0
    assert done.wall_s < 30


def test_batches_side_by_side_are_busy_once() -> None:
    clock = Clock()
    ready = threading.Barrier(2)

    def encode() -> None:
        ready.wait()
        with clock.batch(8):
            time.sleep(0.3)

    threads = [threading.Thread(target=encode) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = clock.figures()
    assert figures["tiles"] == 16
    assert 0.29 < figures["busy_s"] < 0.55
    assert figures["encode_s"] == pytest.approx(figures["busy_s"], abs=0.01)


def test_encode_phase_includes_waits_between_batches_and_busy_time_does_not() -> None:
    clock = Clock()
    for _ in range(2):
        with clock.batch(1):
            time.sleep(0.05)
        time.sleep(0.2)
    figures = clock.figures()
    assert figures["encode_s"] - figures["busy_s"] > 0.19
    assert figures["work_s"] - figures["encode_s"] > 0.19


def test_rates_are_medians_of_rates() -> None:
    found = median([FIGURES | {"wall_s": wall_s, "encode_s": 10.0} for wall_s in (20.0, 30.0, 60.0)])
    assert found["tiles_per_s"] == 20.0
    assert found["encoding_per_s"] == 60.0
    assert found["half_range"] == pytest.approx((30 - 10) / 2 / 20)


def test_the_best_peer_is_what_ours_is_compared_with() -> None:
    chosen = {"own": tables(Path("g.tiff"), ())["own"]}
    medians = {}
    for place, row in enumerate(chosen["own"].rows):
        rate = 90.0 if row.tool == "ours" and row.label == "defaults" else 20.0 + place
        medians[row.key] = median([FIGURES | {"wall_s": FIGURES["tiles"] / rate}])
    best_peer = max(medians[row.key]["tiles_per_s"] for row in chosen["own"].rows if row.tool in PEERS)
    assert f"90.0 / {best_peer:.1f}" in goals(chosen, medians)


def test_what_was_left_out_is_named_with_its_reason() -> None:
    table = tables(Path("g.tiff"), ())["free"]
    reasons = {row.key: "no environment" for row in table.rows if row.tool == "hs2p"}
    medians = {row.key: median([FIGURES]) for row in table.rows if row.tool != "hs2p"}
    text = markdown(table, medians, reasons)
    assert "- hs2p + plain loop: no environment" in text
    assert "| LazySlide | 600 | 30.0 ± 0%" in text


def test_no_two_rows_of_a_table_are_the_same_run() -> None:
    slides = (Path("a.tiff"), Path("b.tiff"))
    both = tables(Path("g.tiff"), slides) | cuda_tables(slides, "cuda", "vit_large_patch16_224", (64, 128))
    for table in both.values():
        assert len({row.key for row in table.rows}) == len(table.rows)
