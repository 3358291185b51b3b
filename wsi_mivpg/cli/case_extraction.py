"""Slides that become bags in a thread, while cases whose bags are there are read and written about.

Memory does not grow with what is ahead: bags are on the disk, and only names wait.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wsi_mivpg.cli.case_inputs import CaseInput
from wsi_mivpg.extraction import ExtractionResult, ExtractionSummary, Progress, SlideInput, SlideSettings, extract_many
from wsi_mivpg.extraction.devices import EncoderChoice, RunChoice, load_encoders
from wsi_mivpg.extraction.ledger import Ledger
from wsi_mivpg.extraction.tile_choice import choose_tiles

_PATIENCE_S = 0.5
Settled = tuple[str, ExtractionResult | str]


class _Stopped(Exception):
    """Nobody waits for the bags any more."""


class Extraction:
    """A run of the extraction engine in a thread of its own.

    Attributes:
        doing: what it is at, for people.
        summary: of the run, once it is over.
    """

    def __init__(self, slides: Sequence[SlideInput], out: Path, choice: RunChoice, device: str) -> None:
        self.doing = "load the encoder"
        self.summary: ExtractionSummary | None = None
        self._slides, self._out, self._choice, self._device = slides, out, choice, device
        self._settled: queue.SimpleQueue[Settled | BaseException | None] = queue.SimpleQueue()
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._go, name="extraction", daemon=True)

    def settled(self) -> Iterator[Settled | None]:
        """Yield each slide's id with its result, or with why it has none; None while nothing is ready.

        Raises:
            WsiMivpgError: the whole run failed.
        """
        while True:
            if self._settled.empty():
                yield None
            try:
                event = self._settled.get(timeout=_PATIENCE_S)
            except queue.Empty:
                continue
            if isinstance(event, BaseException):
                raise event
            if event is None:
                return
            yield event

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End it; what is written is whole."""
        self._is_stopped.set()
        self._thread.join()

    def _go(self) -> None:
        outcome: BaseException | None = None
        try:
            encoders = load_encoders(self._choice, self._device)
            specs = [encoder.spec for encoder in encoders]
            self.summary = extract_many(
                self._slides,
                self._out,
                encoders,
                settings=self._choice.settings,
                tiles=choose_tiles(specs, self._choice.tile_px, self._choice.tile_mpp, force=self._choice.force),
                overwrite=self._choice.overwrite,
                on_progress=self._note_progress,
                on_settled=self._note_settled,
                ledger=Ledger(self._out),
            )
        except _Stopped:
            pass
        except BaseException as problem:
            outcome = problem
        self._settled.put(outcome)

    def _note_progress(self, now: Progress) -> None:
        self._go_on()
        self.doing = f"extract {now.slide_id}, {now.done} of {now.total} tiles"

    def _note_settled(self, slide_id: str, outcome: ExtractionResult | str) -> None:
        self._go_on()
        self._settled.put((slide_id, outcome))

    def _go_on(self) -> None:
        if self._is_stopped.is_set():
            raise _Stopped


@contextlib.contextmanager
def extracting(
    cases: Sequence[CaseInput],
    out: Path,
    *,
    encoder: str,
    tile_px: int | None,
    tile_mpp: float | None,
    device: str,
    settings: SlideSettings,
    overwrite: bool,
) -> Iterator[Extraction | None]:
    """Make the missing bags of all cases meanwhile, as the model asks for them; None where none is missing."""
    slides = list({slide.slide_id: slide for case in cases for slide in case.missing}.values())
    if not slides:
        yield None
        return
    # What the model was trained on is right for it, whatever the encoder's own training.
    choice = RunChoice(
        (EncoderChoice(encoder),), settings, tile_px=tile_px, tile_mpp=tile_mpp, force=True, overwrite=overwrite
    )
    extraction = Extraction(slides, out, choice, device)
    extraction.start()
    try:
        yield extraction
    finally:
        extraction.stop()


def cases_as_ready(
    cases: Sequence[CaseInput], extraction: Extraction | None, fail: Callable[[str, object], None]
) -> Iterator[tuple[CaseInput, float] | None]:
    """Yield each case whose bags are there, with the seconds that its extraction took; None while there is none.

    Args:
        cases: those without missing bags come first.
        extraction: of the missing bags.
        fail: told of slides that failed; their cases are not yielded.
    """
    yield from ((case, 0.0) for case in cases if not case.missing)
    if extraction is None:
        return
    waiting: dict[str, list[CaseInput]] = {}
    for case in cases:
        for slide in case.missing:
            waiting.setdefault(slide.slide_id, []).append(case)
    shown = {slide.slide_id: slide.shown for case in cases for slide in case.missing}
    left = {case.case_id: len(case.missing) for case in cases if case.missing}
    spent = dict.fromkeys(left, 0.0)
    for event in extraction.settled():
        if event is None:
            yield None
            continue
        slide_id, outcome = event
        if isinstance(outcome, str):
            lost = [case.case_id for case in waiting[slide_id] if not case.is_named_by_its_file]
            fail(shown[slide_id], f"{outcome} (no report on case {', '.join(lost)})" if lost else outcome)
            continue
        for case in waiting[slide_id]:
            left[case.case_id] -= 1
            spent[case.case_id] += outcome.seconds
            if not left[case.case_id]:
                yield case, spent[case.case_id]
