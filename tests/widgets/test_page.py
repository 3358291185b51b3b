"""The viewer in a real Chromium, from the local server: what is drawn, what is linked, and hostile text."""

import base64
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.widgets.cases import SENTENCES, evidence_of, maps_of, plan_of, report_of
from wsi_mivpg.evidence.store import write_evidence
from wsi_mivpg.reports import read_jsonl, write_jsonl
from wsi_mivpg.tiling import plan_tiles
from wsi_mivpg.widgets.server import serve

VIEWER = "document.querySelector('main').caseViewer"
HOSTILE = """</script><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>{{7*7}}"""

Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Return what opens case 0 of a folder and waits until its slide is drawn; errors in the console fail the test."""
    servers, pages, problems = [], [], []

    def open_case(folder: Path, **options: Any) -> Any:
        server = serve(folder, 0)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        page = browser.new_page(viewport={"width": 1280, "height": 800}, **options)
        pages.append(page)
        page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda asked: problems.extend(outside(asked.url, server.address)))
        page.goto(f"{server.address}case/0/")
        page.wait_for_function(f"() => {VIEWER} && {VIEWER}.cells && ({VIEWER}.values || !{VIEWER}.hasMaps)")
        return page

    yield open_case
    for page in pages:
        page.close()
    for server in servers:
        server.shutdown()
        server.server_close()
    assert problems == []


def outside(url: str, address: str) -> list[str]:
    """Return what was asked of anybody but the server."""
    return [] if url.startswith((address, "data:", "blob:")) else [f"asked {url}"]


def wait_for_tiles(page: Any, at_least: int = 1) -> None:
    page.wait_for_function(f"() => {VIEWER}.queue.asked >= {at_least} && {VIEWER}.queue.running.size === 0")
    page.wait_for_function(f"() => {VIEWER}.viewer.world.getItemAt(0)?.getFullyLoaded()")


def pixels_of(page: Any, canvas: str) -> np.ndarray:
    """Return what a canvas of the viewer holds, uint8 (H, W, 4)."""
    png = page.evaluate(f"{VIEWER}.{canvas}.toDataURL('image/png')").split(",")[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"))


def slide_pixels(page: Any) -> np.ndarray:
    return pixels_of(page, "viewer.drawer.canvas")


def heat_pixels(page: Any) -> np.ndarray:
    return pixels_of(page, "heat")


def screen_place(page: Any, tile: int) -> tuple[float, float]:
    """Return where the middle of a tile of the shown slide is on the page."""
    x, y = page.evaluate(
        f"""async (tile) => {{
        const v = {VIEWER};
        const places = await v.loadPlaces();
        const half = v.slide.tile_size_l0 / 2;
        const part = v.viewer.viewport.getBounds(true);
        const scale = v.viewer.viewport.getContainerSize().x / (part.width * v.slide.width);
        const box = v.stage.getBoundingClientRect();
        return [box.x + (places[2 * tile] + half - part.x * v.slide.width) * scale,
                box.y + (places[2 * tile + 1] + half - part.y * v.slide.width) * scale];
    }}""",
        tile,
    )
    return x, y


def test_the_slide_is_drawn_and_zooming_asks_for_finer_tiles(opened: Open, case_folder: Path):
    page = opened(case_folder)
    wait_for_tiles(page)
    pixels = slide_pixels(page)
    tissue = pixels[..., 3] > 0
    assert tissue.mean() > 0.2
    assert pixels[tissue][:, :3].std(axis=0).min() > 10
    before = page.evaluate(f"{VIEWER}.queue.asked")
    page.locator(".wm-osd").hover()
    for _ in range(4):
        page.mouse.wheel(0, -300)
        page.wait_for_timeout(60)
    wait_for_tiles(page, before + 1)
    assert page.locator(".wm-scale").inner_text().endswith("µm")


def test_each_tile_has_its_colour_exactly_where_it_lies(opened: Open, case_folder: Path):
    page = opened(case_folder)
    slide = read_jsonl(case_folder / "reports.jsonl")[0].slides[0]
    heat = heat_pixels(page)
    box = page.locator(".wm-osd").bounding_box()
    values = page.evaluate(f"Array.from({VIEWER}.values)")
    table = page.evaluate("Array.from(document.querySelector('main').caseViewer.colours())")
    for tile in range(0, slide.n_tiles, 7):
        x, y = screen_place(page, tile)
        entry = round(values[tile] * 255)
        assert heat[int(y - box["y"]), int(x - box["x"])].tolist() == table[4 * entry : 4 * entry + 4]
    assert (heat[..., 3] > 0).mean() < 0.9


def test_a_sentence_changes_the_map_and_its_settings_change_the_picture(opened: Open, case_folder: Path):
    page = opened(case_folder)
    whole = heat_pixels(page)
    page.get_by_role("button", name=SENTENCES[0]).click()
    page.wait_for_function(f"() => {VIEWER}.shownRow === 0")
    first = heat_pixels(page)
    assert (first != whole).any()
    assert page.locator("[aria-pressed=true].wm-row").inner_text().startswith(SENTENCES[0])
    page.locator("input[name=threshold]").fill("90")
    top = heat_pixels(page)
    assert 0 < (top[..., 3] > 0).sum() < 0.2 * (first[..., 3] > 0).sum()
    page.locator("input[name=threshold]").fill("0")
    page.locator("select[name=colours]").select_option("cividis")
    assert (heat_pixels(page) != first).any()
    page.locator("input[name=opacity]").fill("20")
    assert page.locator(".wm-heat").evaluate("canvas => canvas.style.opacity") == "0.2"
    page.locator("select[name=scale]").select_option("raw")
    page.wait_for_function(f"() => {VIEWER}.ends")
    assert page.locator(".wm-ends").inner_text().split() == ["0", page.evaluate(f"{VIEWER}.ends[1].toPrecision(2)")]
    # The report's third sentence has a map by attention that is no better than random; by gradient it was not tested.
    assert page.locator(".wm-remark:visible").count() == 1
    page.locator("select[name=method]").select_option("gradient")
    page.wait_for_function(f"() => {VIEWER}.shownMethod === 'gradient'")
    assert page.locator(".wm-remark:visible").count() == 0


def test_a_click_marks_the_sentences_that_the_tile_supports(opened: Open, case_folder: Path):
    page = opened(case_folder)
    maps = maps_of([plan_of(path) for path in sorted((case_folder / "slides").glob("*.tiff"), reverse=True)], 4)
    n_here = read_jsonl(case_folder / "reports.jsonl")[0].slides[0].n_tiles
    tile = int(np.argmax(maps[0][:n_here]))
    page.mouse.click(*screen_place(page, tile))
    page.wait_for_function(f"() => {VIEWER}.state.get('selected').length === 1")
    assert page.evaluate(f"{VIEWER}.state.get('selected')") == [tile]
    count = round(maps.shape[1] * 0.1)
    wanted = [tile in np.argsort(-row)[:count] for row in maps]
    page.wait_for_function("(n) => document.querySelectorAll('.wm-supported').length === n", arg=sum(wanted))
    marked = page.locator(".wm-row").evaluate_all("rows => rows.map(row => row.classList.contains('wm-supported'))")
    assert marked == wanted


def test_a_rectangle_chooses_the_tiles_whose_middle_is_inside(opened: Open, case_folder: Path):
    page = opened(case_folder)
    box = page.locator(".wm-osd").bounding_box()
    left, top, right, bottom = (box["x"] + 200, box["y"] + 200, box["x"] + 500, box["y"] + 420)
    page.get_by_role("button", name="Select").click()
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(left + 50, top + 50, steps=3)
    page.mouse.move(right, bottom, steps=3)
    page.mouse.up()
    page.wait_for_function(f"() => {VIEWER}.state.get('selected').length > 1")
    n_here = read_jsonl(case_folder / "reports.jsonl")[0].slides[0].n_tiles
    places = np.array([screen_place(page, tile) for tile in range(n_here)])
    inside = (places > (left, top)).all(axis=1) & (places < (right, bottom)).all(axis=1)
    assert set(page.evaluate(f"{VIEWER}.state.get('selected')")) == set(np.flatnonzero(inside))


def test_tabs_change_the_slide_by_mouse_and_by_key_and_top_tiles_lead_to_theirs(opened: Open, case_folder: Path):
    page = opened(case_folder)
    tabs = page.get_by_role("tab")
    tabs.nth(1).click()
    page.wait_for_function(f"() => {VIEWER}.viewer.source.width === 2000")
    tabs.nth(1).press("ArrowLeft")
    assert tabs.nth(0).get_attribute("aria-selected") == "true"
    page.wait_for_function(f"() => {VIEWER}.topTiles.length === 6")
    first = page.evaluate(f"{VIEWER}.topTiles[0]")
    page.locator(".wm-goto").first.click()
    page.wait_for_function(f"(tile) => {VIEWER}.state.get('selected')[0] === tile", arg=first)
    report = read_jsonl(case_folder / "reports.jsonl")[0]
    on = 0 if first < report.slides[0].n_tiles else 1
    assert tabs.nth(on).get_attribute("aria-selected") == "true"


def test_hostile_text_is_shown_and_never_run(opened: Open, case_folder: Path, tmp_path: Path):
    slide = next((case_folder / "slides").glob("painted*.tiff"))
    named = tmp_path / "x.tiff"
    named.symlink_to(slide)
    plans = [plan_of(slide, 224)]
    sentences = (HOSTILE, f"{HOSTILE} again.")
    maps = maps_of(plans, 3)
    report = report_of([named], plans, maps, sentences=sentences, case_id=HOSTILE)
    report = report.model_copy(update={"warnings": (HOSTILE,), "disclaimer": HOSTILE, "evidence": "e.h5"})
    only = report.slides[0]
    gone = only.model_copy(update={"slide_id": "<b>gone</b>", "path": f"/{HOSTILE}"})
    slides = (only.model_copy(update={"slide_id": HOSTILE}), gone)
    report = report.model_copy(update={"slides": slides})
    evidence = evidence_of(report.model_copy(update={"slides": slides[:1]}), plans, maps)
    write_evidence(tmp_path / "e.h5", evidence)
    write_jsonl(tmp_path / "reports.jsonl", [report])
    page = opened(tmp_path)
    for place in ("h1", ".notice", ".wm-row >> nth=0", ".wm-warning >> nth=0", ".wm-tab >> nth=0"):
        assert HOSTILE in page.locator(place).inner_text()
    page.get_by_role("tab").nth(1).click()
    page.wait_for_function("() => document.querySelector('.wm-note').textContent.includes('onerror')")
    page.goto(page.url.split("case/")[0])
    assert HOSTILE in page.locator("ul.cases").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0


def test_drawing_a_hundred_thousand_tiles_takes_a_small_part_of_a_frame(opened: Open, tmp_path: Path):
    plan = plan_tiles((72_000, 72_000), 0.25, target_mpp=0.25, tile_px=224)
    maps = maps_of([plan], 4)
    assert len(plan) > 100_000
    report = report_of([tmp_path / "none.tiff"], [plan], maps).model_copy(update={"evidence": "e.h5"})
    write_evidence(tmp_path / "e.h5", evidence_of(report, [plan], maps))
    write_jsonl(tmp_path / "reports.jsonl", [report])
    page = opened(tmp_path)
    for zoom in (1, 8, 64):
        page.evaluate(f"{VIEWER}.viewer.viewport.zoomTo({zoom}, null, true)")
        best = page.evaluate(f"""() => Math.min(...Array.from({{ length: 20 }}, () => {{
            const start = performance.now();
            {VIEWER}.draw();
            return performance.now() - start;
        }}))""")
        assert best < 16.7 / 4
    assert (heat_pixels(page)[..., 3] == 255).all()


def test_a_report_without_slides_at_hand_still_shows_its_tiles(opened: Open, case_folder: Path, tmp_path: Path):
    report = read_jsonl(case_folder / "reports.jsonl")[0]
    slides = tuple(slide.model_copy(update={"path": None}) for slide in report.slides)
    write_jsonl(tmp_path / "reports.jsonl", [report.model_copy(update={"slides": slides, "evidence": None})])
    page = opened(tmp_path)
    assert (heat_pixels(page)[..., 3] > 0).any()
    assert "does not say where" in page.locator(".wm-note").inner_text()
