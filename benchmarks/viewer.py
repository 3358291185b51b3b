"""Frames a second while a slide of 100,000 tiles is panned in the viewer: with the map, without it, and at rest.

    python benchmarks/viewer.py [--tiles 100000] [--out out/viewer] [--rounds 3]

All three are measured in turn on the same page of `wsi-mivpg view`, in headless Chromium. The slide is the tissue
photograph of scikit-image, laid side by side; the map is made up, for its drawing costs the same.
"""

import argparse
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright
from skimage import data

from wsi_mivpg.cohorts.virtual import write_pyramid
from wsi_mivpg.evidence import Evidence, SlideTiles, write_evidence
from wsi_mivpg.reports import Provenance, Report, Sentence, SlideSummary, write_jsonl
from wsi_mivpg.slides import open_slide
from wsi_mivpg.tiling import TilePlan, plan_tiles
from wsi_mivpg.widgets.server import serve

SIDE_PX, MPP = 16_384, 0.25
TEXT = "A sentence. Another sentence."
SENTENCES = ((0, 11), (12, 29))
ZOOMS = {"whole slide": 1.0, "zoomed 6 times": 6.0, "zoomed 60 times": 60.0}
PAN_S = 3.0
CASE = "document.querySelector('main').caseViewer"
COUNT = """() => {
  window.frames_ms = [];
  let last = performance.now();
  const tick = (now) => { window.frames_ms.push(now - last); last = now; window.asked = requestAnimationFrame(tick); };
  window.asked = requestAnimationFrame(tick);
}"""
STOP = "() => { cancelAnimationFrame(window.asked); return window.frames_ms; }"


def main() -> None:
    """Make the slide and its reports where they are not there, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("out/viewer"))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    plan = write_case(arguments.out, arguments.tiles)
    server = serve(arguments.out, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser_path is None:
        raise SystemExit("no browser found: install chromium")
    with sync_playwright() as driver:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=browser_path, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{server.address}case/0/")
        page.wait_for_selector(".wm-row")
        page.wait_for_timeout(5000)
        print(f"{len(plan):,} tiles, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(f"map drawn in {draw_ms(page):.2f} ms a frame")
        measure(page, arguments.rounds)
        browser.close()
    server.shutdown()


def write_case(out: Path, tiles: int) -> TilePlan:
    """Write a slide, and a report on it with a map for each sentence."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "slide.tiff"
    if not path.exists():
        photograph = data.immunohistochemistry()
        times = -(-SIDE_PX // min(photograph.shape[:2]))
        write_pyramid(path, np.tile(photograph, (times, times, 1))[:SIDE_PX, :SIDE_PX], MPP)
    with open_slide(path) as slide:
        side_px = int((slide.size_px[0] * slide.size_px[1] / tiles) ** 0.5)
        plan = plan_tiles(slide.size_px, slide.mpp, target_mpp=slide.mpp, tile_px=side_px)
    random = np.random.default_rng(0)
    far = np.linalg.norm(plan.coords - np.array(plan.slide_size_px) / 2, axis=1)
    weights = np.exp(-far / 4000) + 0.2 * random.random((len(SENTENCES) + 1, len(plan)))
    where = SlideTiles("slide", 0, plan.coords, plan.tile_size_l0, plan.slide_size_px)
    write_evidence(
        out / "evidence.h5",
        Evidence("slide", TEXT, "none", (where,), SENTENCES, {"attention": weights.astype(np.float32)}),
    )
    sentences = tuple(
        Sentence(text=TEXT[start:end], start=start, end=end, logprob=-1.0, method="attention")
        for start, end in SENTENCES
    )
    summary = SlideSummary(slide_id="slide", n_tiles=len(plan), path=str(path.resolve()))
    report = Report(
        case_id="slide",
        text=TEXT,
        provenance=Provenance(created="not a report"),
        slides=(summary,),
        sentences=sentences,
        evidence="evidence.h5",
    )
    write_jsonl(out / "reports.jsonl", [report])
    return plan


def measure(page: Page, rounds: int) -> None:
    """Print frames a second, the median of the rounds, for each zoom: with the map, without it, and at rest."""
    page.evaluate(f"() => {{ window.drawMap = {CASE}.draw; }}")
    print(f"{'':18}with map  without  at rest   (frames a second; slowest twentieth in ms)")
    for name, zoom in ZOOMS.items():
        page.evaluate(f"{CASE}.viewer.viewport.zoomTo({zoom}, null, true)")
        page.wait_for_timeout(3000)
        seen: dict[str, list[Any]] = {"with": [], "without": [], "rest": []}
        for _ in range(rounds):
            page.evaluate(f"() => {{ {CASE}.draw = window.drawMap; }}")
            seen["with"].append(panned(page))
            page.evaluate(f"() => {{ {CASE}.draw = () => {{}}; }}")
            seen["without"].append(panned(page))
            seen["rest"].append(rested(page))
        rates = {kind: np.median([1000 / frames.mean() for frames in runs]) for kind, runs in seen.items()}
        slow = [np.median([np.quantile(frames, 0.95) for frames in runs]) for runs in seen.values()]
        print(
            f"{name:18}{rates['with']:8.1f}{rates['without']:9.1f}{rates['rest']:9.1f}   "
            + " / ".join(f"{one:.0f}" for one in slow)
        )
    page.evaluate(f"() => {{ {CASE}.draw = window.drawMap; }}")


def panned(page: Page) -> np.ndarray:
    """Drag the slide about for `PAN_S` seconds; return the milliseconds between frames."""
    page.mouse.move(600, 400)
    page.mouse.down()
    page.evaluate(COUNT)
    began, step = time.perf_counter(), 0
    while time.perf_counter() - began < PAN_S:
        step += 1
        page.mouse.move(600 + 200 * np.sin(step / 15), 400 + 120 * np.cos(step / 11))
        time.sleep(0.008)
    frames = page.evaluate(STOP)
    page.mouse.up()
    return np.array(frames)[2:]


def rested(page: Page) -> np.ndarray:
    """Do nothing for `PAN_S` seconds."""
    page.wait_for_timeout(500)
    page.evaluate(COUNT)
    page.wait_for_timeout(PAN_S * 1000)
    return np.array(page.evaluate(STOP))[2:]


def draw_ms(page: Page) -> float:
    """Return how long drawing the map takes, mean of 100."""
    return float(
        page.evaluate(
            f"() => {{ const v = {CASE}; const t = performance.now(); for (let i = 0; i < 100; i++) v.draw(); "
            "return (performance.now() - t) / 100; }"
        )
    )


if __name__ == "__main__":
    main()
