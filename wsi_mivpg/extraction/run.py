"""A run: slides in, bags out, each slide once, whatever happens in between.

Says which slides are still to do, shares them with other runs by claims, and records what became of each. Reading and
encoding is the engine's job.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.encoders.registry import TileEncoder
from wsi_mivpg.errors import OutputError, SlideError, WsiMivpgError
from wsi_mivpg.extraction.bag_files import bag_folders, kept_bag, remove_leftovers, wanted_provenance, write_task
from wsi_mivpg.extraction.batch_size import auto_batch_size
from wsi_mivpg.extraction.claims import Claims
from wsi_mivpg.extraction.engine import SlideTask, run_engine
from wsi_mivpg.extraction.image_tokens import check_inputs, open_picture
from wsi_mivpg.extraction.inputs import SlideInput, slide_input, unique_ids
from wsi_mivpg.extraction.lanes import Lanes
from wsi_mivpg.extraction.ledger import Ledger, State, StatusRow
from wsi_mivpg.extraction.meter import Meter
from wsi_mivpg.extraction.settings import SlideSettings
from wsi_mivpg.extraction.sources import Source, open_source
from wsi_mivpg.extraction.summary import ExtractionResult, ExtractionSummary, Failure, Progress, Throughput, measured
from wsi_mivpg.extraction.tile_choice import TileChoice, same_tiles

DEFAULT_SETTINGS = SlideSettings()


def extract_slide(
    path: Path | str,
    encoder: TileEncoder,
    out_dir: Path | str,
    *,
    settings: SlideSettings = DEFAULT_SETTINGS,
    batch_size: int | None = None,
    overwrite: bool = False,
) -> ExtractionResult:
    """Extract one slide into `out_dir/<slide id>.h5`; see `extract_many`.

    Raises:
        WsiMivpgError: the slide could not be extracted; the message says why.
    """
    given = slide_input(path)
    summary = extract_many(
        [given], out_dir, [encoder], settings=settings, batch_size=batch_size, overwrite=overwrite, raise_errors=True
    )
    if summary.elsewhere:
        raise SlideError(f"{given.shown}: {summary.elsewhere[given.slide_id]} is extracting it into {out_dir}; wait")
    return summary.results[0]


def extract_many(
    slides: Sequence[SlideInput],
    out_dir: Path | str,
    encoders: Sequence[TileEncoder],
    *,
    settings: SlideSettings = DEFAULT_SETTINGS,
    tiles: TileChoice | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_settled: Callable[[str, ExtractionResult | str], None] | None = None,
    ledger: Ledger | None = None,
    raise_errors: bool = False,
) -> ExtractionSummary:
    """Extract slides into bags; one bad slide never stops the others.

    A complete bag made with the same settings is kept; one made with other settings fails its slide unless `overwrite`.
    A slide without tissue gives an empty bag. Tiles that cannot be decoded are left out and named in the bag. Other
    runs into the same folder share the work. Beside the bags lie status.csv, failures.csv and summary.md.

    Args:
        slides: from `find_slides`, each id once.
        out_dir: folder of bags, made if absent.
        encoders: from `wsi_mivpg.encoders.load.load_encoder`. Those that take the same tiles share one decoding pass.
        settings: how slides are opened and tissue is found.
        tiles: the tiles to cut; by default those that each encoder was trained on.
        batch_size: tiles encoded at once; by default what suits the device.
        threads: cores to use; default all that this process may.
        overwrite: replace bags that were made with other settings.
        on_progress: called often, from several threads.
        on_settled: called once a slide's bags are there (kept or done) with its id and result, or with the reason why
            there are none; from several threads. With encoders that take different tiles, once for each kind.
        ledger: of `out_dir`; by default a new one.
        raise_errors: raise the first slide's error instead of recording it.

    Raises:
        SlideError: two slides have the same id.
        EncoderError: pictures for encoders that pool their tokens, or slides for encoders that keep them.
        OutputError: `out_dir` cannot be written, or the disk is full; what is there is whole, and the next run goes on.
    """
    unique_ids(slides)
    check_inputs(slides, encoders)
    out_dir = Path(out_dir)
    ledger = ledger or Ledger(out_dir)
    folders = bag_folders(out_dir, encoders)
    with Claims(out_dir) as claims:
        run = _Run(slides, settings, overwrite, claims, ledger, on_progress, on_settled, raise_errors)
        try:
            for choice, positions in same_tiles(encoders, tiles).items():
                run.go([encoders[i] for i in positions], [folders[i] for i in positions], choice, batch_size, threads)
        except BaseException:
            with suppress(OutputError):  # the disk may be full; what stopped the run says so
                run.record()
            raise
        run.record()
    return run.summary()


class _Run:
    """What has become of each slide so far."""

    def __init__(
        self,
        slides: Sequence[SlideInput],
        settings: SlideSettings,
        overwrite: bool,
        claims: Claims,
        ledger: Ledger,
        on_progress: Callable[[Progress], None] | None,
        on_settled: Callable[[str, ExtractionResult | str], None] | None,
        raise_errors: bool,
    ) -> None:
        self._slides = slides
        self._numbers = {slide.slide_id: number for number, slide in enumerate(slides, 1)}
        self._settings = settings
        self._overwrite = overwrite
        self._claims = claims
        self._ledger = ledger
        self._on_progress = on_progress
        self._on_settled = on_settled or (lambda slide_id, outcome: None)
        self._raise_errors = raise_errors
        self._results: dict[str, ExtractionResult] = {}
        self._failures: dict[str, Failure] = {}
        self._elsewhere: dict[str, str] = {}
        self._throughput: list[Throughput] = []

    def go(
        self,
        encoders: Sequence[TileEncoder],
        folders: Sequence[Path],
        choice: TileChoice,
        batch_size: int | None,
        threads: int | None,
    ) -> None:
        """Do all slides with encoders that take the same tiles."""
        self._encoders, self._folders, self._choice = encoders, folders, choice
        meter, began = Meter(), time.monotonic()
        lanes = Lanes(encoders, batch_size or auto_batch_size(encoders, choice.tile_px), threads)
        spool = folders[0]
        try:
            run_engine(
                self._tasks(), encoders, lanes, choice.tile_px, self._finish, meter, spool, self._report_progress
            )
        finally:
            self._throughput.append(measured(meter, lanes, time.monotonic() - began))

    def record(self) -> None:
        """Write the ledger's files."""
        self._ledger.summarise([one.described for one in self._throughput if one.n_tiles])

    def summary(self) -> ExtractionSummary:
        """Return what became of the slides, in their order."""
        ids = [slide.slide_id for slide in self._slides]
        return ExtractionSummary(
            tuple(self._results[one] for one in ids if one in self._results and one not in self._failures),
            tuple(self._failures[one] for one in ids if one in self._failures),
            dict(self._elsewhere),
            tuple(self._throughput),
        )

    def _tasks(self) -> Iterator[SlideTask]:
        """Open what is to be done. Slides that others hold come last, by when they may be done, or their run dead.

        So a slide that kills the process is tried last by the next run, after all others.
        """
        later: list[SlideInput] = []
        for slide in self._slides:
            if self._claims.holder(slide.slide_id) is not None:
                later.append(slide)
            else:
                yield from self._task(slide, later)
        for slide in later:
            yield from self._task(slide, None)

    def _task(self, slide: SlideInput, later: list[SlideInput] | None) -> Iterator[SlideTask]:
        """Open one slide; gives nothing where there is nothing to do.

        Args:
            slide: to be opened.
            later: takes the slide where another run has it; None when there is no later, and dead runs' claims are
                taken over.
        """
        started = time.monotonic()
        source = None
        try:
            source = self._open(slide)
            if self._is_kept(slide, source, started):
                source.close()
                return
            if not self._claims.take(slide.slide_id, from_the_dead=later is None):
                source.close()
                if later is None:
                    self._note_elsewhere(slide)
                else:
                    later.append(slide)
                return
            # Another run may have finished it between the two looks.
            if self._is_kept(slide, source, started):
                self._claims.release(slide.slide_id)
                source.close()
                return
            for folder in self._folders:
                remove_leftovers(folder / f"{slide.slide_id}.h5")
            missing = self._missing(slide, source)
            task = SlideTask(source, source.plan(), missing, started)
        except WsiMivpgError as error:
            if source is not None:
                source.close()
            self._fail(slide, error)
            return
        yield task

    def _open(self, slide: SlideInput) -> Source:
        if slide.is_picture:
            return open_picture(slide, self._choice.tile_px)
        return open_source(slide, self._settings, self._choice.tile_px, self._choice.mpp)

    def _missing(self, slide: SlideInput, source: Source) -> tuple[int, ...]:
        """Return the encoders whose bag is not there or is to be replaced."""
        if self._overwrite:
            return tuple(range(len(self._encoders)))
        return tuple(i for i in range(len(self._encoders)) if self._kept(slide, source, i) is None)

    def _kept(self, slide: SlideInput, source: Source, i: int) -> FeatureBag | None:
        wanted = wanted_provenance(source.provenance, self._encoders[i])
        return kept_bag(self._folders[i] / f"{slide.slide_id}.h5", wanted)

    def _is_kept(self, slide: SlideInput, source: Source, started: float) -> bool:
        if self._overwrite:
            return False
        bags = [bag for i in range(len(self._encoders)) if (bag := self._kept(slide, source, i)) is not None]
        if len(bags) < len(self._encoders):
            return False
        self._record(slide, source, "kept", len(bags[0]), len(bags[0].unreadable), time.monotonic() - started)
        return True

    def _finish(self, task: SlideTask) -> None:
        """Write the bags of a slide that is encoded, unless it changed or vanished meanwhile."""
        slide = task.source.given
        try:
            if not task.source.is_unchanged():
                raise SlideError(f"{slide.shown}: the file changed or vanished while it was read; run again")
            if task.is_cut_off:
                raise SlideError(f"{slide.shown}: it could not be reached all the time ({task.last_error}); run again")
            if len(task.tiles) and not task.is_read.any():
                raise SlideError(f"{slide.shown}: none of its tiles could be read; the last error: {task.last_error}")
            for i in task.wanted:
                write_task(task, i, self._folders[i] / f"{slide.slide_id}.h5", self._encoders[i])
        except SlideError as error:
            self._fail(slide, error)
            return
        n_read = int(np.count_nonzero(task.is_read))
        n_rows = n_read * self._encoders[0].spec.n_tokens
        seconds = time.monotonic() - task.started
        self._record(slide, task.source, "done", n_rows, len(task.tiles) - n_read, seconds)
        self._claims.release(slide.slide_id)

    def _record(
        self, slide: SlideInput, source: Source, state: State, n_tiles: int, n_unreadable: int, seconds: float
    ) -> None:
        paths = tuple(folder / f"{slide.slide_id}.h5" for folder in self._folders)
        earlier = self._results.get(slide.slide_id)  # with encoders that take other tiles
        if earlier is not None:
            paths, seconds = (*earlier.bag_paths, *paths), earlier.seconds + seconds
            state = "done" if "done" in (state, earlier.state) else state
        self._elsewhere.pop(slide.slide_id, None)
        self._results[slide.slide_id] = ExtractionResult(slide.slide_id, paths, n_tiles, seconds, state, n_unreadable)
        made = source.provenance
        notes = []
        if n_tiles == 0:
            notes.append("no tissue found: an empty bag")
        if n_unreadable:
            notes.append(f"{n_unreadable} tiles could not be read")
        if made["slide_mpp"] != made["slide_mpp"] and not slide.is_picture:
            notes.append("microns per pixel unknown")
        self._ledger.record(
            StatusRow(
                slide.slide_id,
                slide.shown,
                slide.case_id,
                state,
                n_tiles,
                n_unreadable,
                round(seconds, 2),
                f"{made['slide_mpp']:.6g}",
                str(made["reader"]),
                "; ".join(notes),
            )
        )
        self._on_settled(slide.slide_id, self._results[slide.slide_id])

    def _fail(self, slide: SlideInput, error: WsiMivpgError) -> None:
        """Record a slide's failure. What cannot be written stops the run: it would fail every slide after it."""
        self._claims.release(slide.slide_id)
        if self._raise_errors or isinstance(error, OutputError):
            raise error
        self._failures[slide.slide_id] = Failure(slide.shown, str(error))
        self._ledger.record(StatusRow(slide.slide_id, slide.shown, slide.case_id, "failed", message=str(error)))
        self._on_settled(slide.slide_id, str(error))

    def _note_elsewhere(self, slide: SlideInput) -> None:
        holder = self._claims.holder(slide.slide_id) or "another run"
        self._elsewhere[slide.slide_id] = holder
        self._ledger.record(StatusRow(slide.slide_id, slide.shown, slide.case_id, "elsewhere", message=holder))
        reason = f"{slide.shown}: another run extracts it ({holder}); run again when it is done"
        self._on_settled(slide.slide_id, reason)

    def _report_progress(self, task: SlideTask) -> None:
        if self._on_progress is not None:
            slide_id, total = task.source.given.slide_id, len(task.tiles)
            number = self._numbers[slide_id]
            self._on_progress(Progress(slide_id, total - task.n_left, total, number, len(self._slides)))
