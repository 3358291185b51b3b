"""The run of ``wsi-mivpg report``: cases as they get ready, their texts in batches, their pages, their records.

It orders the work and counts it; each step is another module's.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.cli.case_extraction import Extraction, cases_as_ready
from wsi_mivpg.cli.case_files import describe_case, has_files
from wsi_mivpg.cli.case_inputs import CaseInput
from wsi_mivpg.cli.case_texts import Asked, Fail, OpenCase, open_case, run_hash, write_texts
from wsi_mivpg.errors import OutputError, WsiMivpgError
from wsi_mivpg.reports import Records

Advance = Callable[[int, int, str], None]


@dataclass
class Tally:
    """What a run has done so far, and what its time went to.

    Attributes:
        written, kept: ids of the cases written now, and of those that were there with the same settings.
        n_tokens: written, end tokens included.
        text_s: spent reading bags and writing texts.
        page_s: spent on evidence, pages and records.
    """

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    n_tokens: int = 0
    text_s: float = 0.0
    page_s: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def described(self) -> str:
        """A line for people."""
        wall_s = time.perf_counter() - self.started
        kept = f" ({len(self.kept)} were there)" if self.kept else ""
        if not self.written:
            return f"no case to write{kept}"
        return (
            f"{len(self.written)} case{'' if len(self.written) == 1 else 's'} in {wall_s:.1f} s{kept}: "
            f"{60 * len(self.written) / wall_s:.1f} a minute; {self.n_tokens} tokens at "
            f"{self.n_tokens / self.text_s:.1f} a second while writing; texts {self.text_s:.1f} s, evidence and pages "
            f"{self.page_s:.1f} s"
        )


def report_on(
    captioner: SlideCaptioner,
    cases: Sequence[CaseInput],
    extraction: Extraction | None,
    asked: Asked,
    records: Records,
    fail: Fail,
    advance: Advance,
    *,
    again: bool,
) -> Tally:
    """Write the report of each case that has none of these settings yet.

    Args:
        captioner: the model, in eval mode.
        cases: what to report on.
        extraction: of their missing bags, under way.
        asked: how.
        records: of the folder.
        fail: told what could not be reported on, and why.
        advance: told after each case how far the run is.
        again: write also what is there with the same settings.

    Raises:
        OutputError: the folder cannot be written; what is there is whole.
        EncoderError: the encoder of missing bags cannot be had.
    """
    tally = Tally()
    n_over = 0

    def over(name: str, n_cases: int = 1) -> None:
        nonlocal n_over
        n_over += n_cases
        advance(n_over, len(cases), name)

    def opened() -> Iterator[OpenCase | None]:
        """Yield what is to be written; None while nothing is ready."""
        of_run = run_hash(captioner, asked)
        for ready in cases_as_ready(cases, extraction, fail):
            if ready is None:
                if extraction is not None:
                    advance(n_over, len(cases), extraction.doing)
                yield None
                continue
            given, seconds = ready
            try:
                case = open_case(captioner, given, asked, of_run, seconds)
            except WsiMivpgError as problem:
                fail(given.shown, problem)
                over(given.case_id)
                continue
            same = records.hashes.get(given.case_id) == case.settings_hash
            if same and not again and has_files(asked, given.case_id, records.evidence[given.case_id]):
                tally.kept.append(given.case_id)
                over(given.case_id)
            else:
                yield case

    for batch in _batched(opened(), asked.batch_size):
        _write(captioner, batch, asked, records, fail, tally)
        over(batch[-1].given.case_id, len(batch))
    records.settle()
    if n_over < len(cases):
        over("the last failed", len(cases) - n_over)
    return tally


def _batched(cases: Iterable[OpenCase | None], size: int) -> Iterator[list[OpenCase]]:
    """Yield cases `size` at a time, or fewer where the next one (None) is not ready: nobody waits for a full batch."""
    batch: list[OpenCase] = []
    for case in cases:
        if case is not None:
            batch.append(case)
        if batch and (case is None or len(batch) == size):
            yield batch
            batch = []
    if batch:
        yield batch


def _write(
    captioner: SlideCaptioner, batch: Sequence[OpenCase], asked: Asked, records: Records, fail: Fail, tally: Tally
) -> None:
    """Write about a batch, then each case's files, and its record when they are there."""
    started = time.perf_counter()
    texts = write_texts(captioner, batch, asked, fail)
    tally.n_tokens += sum(len(text.generated.token_ids) for text in texts)
    tally.text_s += time.perf_counter() - started
    started = time.perf_counter()
    for text in texts:
        try:
            records.add(describe_case(captioner, text, asked))
            tally.written.append(text.case.given.case_id)
        except OutputError:
            raise  # it would fail every case after it
        except WsiMivpgError as problem:
            fail(text.case.given.shown, problem)
    tally.page_s += time.perf_counter() - started
