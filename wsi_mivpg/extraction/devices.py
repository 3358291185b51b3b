"""One run on one device or on several: a process for each, and the slides handed out by claims as they get free.

What a process does is `run`'s job.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from wsi_mivpg.encoders.registry import TileEncoder
from wsi_mivpg.extraction.claims import Claims
from wsi_mivpg.extraction.inputs import SlideInput
from wsi_mivpg.extraction.ledger import Ledger, read_status
from wsi_mivpg.extraction.run import extract_many
from wsi_mivpg.extraction.settings import SlideSettings
from wsi_mivpg.extraction.summary import ExtractionSummary, Failure, Progress
from wsi_mivpg.extraction.tile_choice import choose_tiles

_SECONDS_BETWEEN_LOOKS = 5.0


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder as the user names it, and its weights where they are not where they belong."""

    name: str
    weights: Path | None = None


@dataclass(frozen=True)
class RunChoice:
    """All that a process needs to know to do its part of a run.

    Attributes:
        encoders: at least one.
        settings: how slides are opened and tissue is found.
        tile_px, tile_mpp: tiles other than those that the encoders were trained on.
        force: take them although the encoders were not trained on such.
        precision: "auto", "fp32", "bf16" or "fp16".
        compiled: let torch compile the networks.
        trust_remote_code: let encoders run code from their hub page.
        batch_size: tiles encoded at once; None for what suits the device.
        threads: cores for each process; None for an equal share of all.
        overwrite: replace bags made with other settings.
        patch_tokens: keep each picture's tokens in place of one vector; all slides of the run are pictures then.
        wait: stay until the slides that other runs hold are done, and do those whose run died.
    """

    encoders: tuple[EncoderChoice, ...]
    settings: SlideSettings = field(default_factory=SlideSettings)
    tile_px: int | None = None
    tile_mpp: float | None = None
    force: bool = False
    precision: str = "auto"
    compiled: bool = False
    trust_remote_code: bool = False
    batch_size: int | None = None
    threads: int | None = None
    overwrite: bool = False
    patch_tokens: bool = False
    wait: bool = False


def extract_on(
    devices: Sequence[str],
    slides: Sequence[SlideInput],
    out_dir: Path,
    choice: RunChoice,
    on_progress: Callable[[Progress], None] | None = None,
    lost_inputs: dict[str, str] | None = None,
    on_wait: Callable[[dict[str, str]], None] | None = None,
) -> ExtractionSummary:
    """Extract slides on one device in this process, or on several in a process each.

    Args:
        devices: "cpu", "cuda", "cuda:1" …; the same one twice makes two processes on it.
        slides: from `find_slides`.
        out_dir: folder of bags.
        choice: the run's settings.
        on_progress: as in `extract_many`; with several devices it is called now and then, and counts slides.
        lost_inputs: what was named but is no slide, and why, for failures.csv.
        on_wait: where the run is to wait, told of the slides that others hold, and who, before it does.

    Raises:
        EncoderError: an encoder cannot be had, or was not trained on such tiles.
        OutputError: `out_dir` cannot be written.
    """
    summary = _extract_on(devices, slides, out_dir, choice, on_progress, lost_inputs)
    while choice.wait and summary.elsewhere:
        if on_wait is not None:
            on_wait(summary.elsewhere)
        held = [slide for slide in slides if slide.slide_id in summary.elsewhere]
        wait_for_others(out_dir, [slide.slide_id for slide in held])
        again = _extract_on(devices, held, out_dir, choice, on_progress, lost_inputs)
        summary = _merged(slides, [summary, again])
    return summary


def wait_for_others(out_dir: Path, slide_ids: Sequence[str]) -> None:
    """Wait until no living run holds any of these slides."""
    claims = Claims(out_dir)
    while any(claims.holder(one) is not None and not claims.is_dead(one) for one in slide_ids):
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _extract_on(
    devices: Sequence[str],
    slides: Sequence[SlideInput],
    out_dir: Path,
    choice: RunChoice,
    on_progress: Callable[[Progress], None] | None,
    lost_inputs: dict[str, str] | None,
) -> ExtractionSummary:
    if len(devices) == 1:
        return _extract(devices[0], slides, out_dir, choice, on_progress, lost_inputs)
    pools = [new_pool() for _ in devices]
    parts: list[ExtractionSummary] = []
    died: list[str] = []
    try:
        futures = [
            pool.submit(_extract, device, slides, out_dir, choice) for pool, device in zip(pools, devices, strict=True)
        ]
        _watch(futures, slides, out_dir, on_progress)
        for device, future in zip(devices, futures, strict=True):
            try:
                parts.append(future.result())
            except BrokenProcessPool:
                died.append(device)
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)
    if died:
        # What a dead process held is free again: done here, after all else.
        parts.append(_extract(devices[0], slides, out_dir, choice, on_progress))
    merged = _merged(slides, parts)
    Ledger(out_dir, lost_inputs).summarise([one.described for one in merged.throughput if one.n_tiles])
    return merged


def new_pool() -> ProcessPoolExecutor:
    """Return a pool of one process, which ends with this one, however this one ends: others would wait forever."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def load_encoders(choice: RunChoice, device: str) -> list[TileEncoder]:
    """Load a run's encoders onto a device."""
    from wsi_mivpg.encoders.load import load_encoder

    return [
        load_encoder(
            one.name,
            device=device,
            weights=one.weights,
            trust_remote_code=choice.trust_remote_code,
            precision=choice.precision,
            compiled=choice.compiled,
            patch_tokens=choice.patch_tokens,
        )
        for one in choice.encoders
    ]


def _extract(
    device: str,
    slides: Sequence[SlideInput],
    out_dir: Path,
    choice: RunChoice,
    on_progress: Callable[[Progress], None] | None = None,
    lost_inputs: dict[str, str] | None = None,
) -> ExtractionSummary:
    encoders = load_encoders(choice, device)
    tiles = choose_tiles([encoder.spec for encoder in encoders], choice.tile_px, choice.tile_mpp, force=choice.force)
    return extract_many(
        slides,
        out_dir,
        encoders,
        settings=choice.settings,
        tiles=tiles,
        batch_size=choice.batch_size,
        threads=choice.threads,
        overwrite=choice.overwrite,
        on_progress=on_progress,
        ledger=Ledger(out_dir, lost_inputs),
    )


def _watch(
    futures: Sequence[Future[ExtractionSummary]],
    slides: Sequence[SlideInput],
    out_dir: Path,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    """Wait for all processes, and tell from time to time how many slides they have settled."""
    ids = {slide.slide_id for slide in slides}
    while wait(futures, timeout=_SECONDS_BETWEEN_LOOKS).not_done:
        if on_progress is not None:
            rows = read_status(out_dir / "status.csv")
            settled = sum(row.slide_id in ids and row.state != "elsewhere" for row in rows)
            on_progress(Progress("", settled, len(slides), settled, len(slides)))


def _merged(slides: Sequence[SlideInput], parts: Sequence[ExtractionSummary]) -> ExtractionSummary:
    """Return one summary: a slide is done if any part did it, failed if one failed it, else elsewhere."""
    order = {slide.slide_id: number for number, slide in enumerate(slides)}
    results = {one.slide_id: one for part in parts for one in part.results if one.state == "kept"}
    results |= {one.slide_id: one for part in parts for one in part.results if one.state == "done"}
    shown = {slide.shown: slide.slide_id for slide in slides}
    failures: dict[str, Failure] = {one.slide: one for part in parts for one in part.failures}
    for name in [name for name in failures if shown[name] in results]:
        del failures[name]
    settled = results.keys() | {shown[name] for name in failures}
    elsewhere = {key: who for part in parts for key, who in part.elsewhere.items() if key not in settled}
    return ExtractionSummary(
        tuple(sorted(results.values(), key=lambda one: order[one.slide_id])),
        tuple(failures.values()),
        elsewhere,
        tuple(one for part in parts for one in part.throughput),
    )
