"""From what a user named (files, folders, manifests, addresses) to slides and bags, with what failed beside it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.errors import WsiMivpgError

if TYPE_CHECKING:
    from wsi_mivpg.extraction import ExtractionResult, ExtractionSummary, Progress, SlideInput, SlideSettings

BAG_SUFFIX = ".h5"
COHORT_SUFFIXES = (".jsonl", ".parquet")

MppOption = Annotated[
    float | None, typer.Option(help="Microns per pixel of level 0, where the files are silent or wrong.")
]
MppCsvOption = Annotated[
    Path | None, typer.Option(help="CSV with the columns slide,mpp; for the slides it names it wins over --mpp.")
]
ReaderOption = Annotated[
    str | None,
    typer.Option(help="Ask this reader only: deepzoom, tile-once, openslide, tiffslide or flat-image."),
]
FastDecodeOption = Annotated[
    bool, typer.Option("--fast-decode", help="Let the JPEG decoder shrink tiles: faster, pixels not exact.")
]
TissueOption = Annotated[
    str, typer.Option(help="otsu, hsv, none, FILE.geojson, a folder of <slide>.geojson, or an installed segmenter.")
]
MinTissueOption = Annotated[float, typer.Option(min=0, max=1, help="Least tissue share of a tile.")]


@dataclass
class Inputs:
    """What was found. `failures` maps an input, as it was given, to the reason."""

    slides: "list[SlideInput]" = field(default_factory=list)
    bags: list[Path] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def fail(self, name: str, problem: object) -> None:
        """Note a failed input and say so on stderr."""
        self.failures[name] = str(problem)
        console.error(problem)

    def __len__(self) -> int:
        return len(self.slides) + len(self.bags)


def collect(
    given: Sequence[str | Path],
    *,
    bags_too: bool = False,
    pattern: str | None = None,
    patches: bool = False,
    pictures: bool = False,
) -> Inputs:
    """Find the slides of each input; with `bags_too` also bags, in a folder only where it has no slides.

    Raises:
        SlideError: two inputs have the same name without suffix, and so would be one case.
    """
    from wsi_mivpg.extraction import find_slides, slide_input, unique_ids

    found = Inputs()
    for one in given:
        path = Path(one)
        try:
            if bags_too and path.suffix == BAG_SUFFIX:
                found.bags.append(path)
            elif path.suffix in COHORT_SUFFIXES and path.is_file():
                found.slides += _of_cohort(path, patches, pictures)
            else:
                found.slides += find_slides([one], pattern=pattern, patches=patches, pictures=pictures)
        except WsiMivpgError as problem:
            inside = sorted(path.rglob(f"*{BAG_SUFFIX}")) if bags_too and path.is_dir() else []
            found.bags += inside
            if not inside:
                found.fail(str(one), problem)
    found.slides = list(dict.fromkeys(found.slides))
    found.bags = list(dict.fromkeys(found.bags))
    unique_ids([*found.slides, *(slide_input(bag) for bag in found.bags)])
    return found


def _of_cohort(manifest: Path, patches: bool, pictures: bool) -> "list[SlideInput]":
    """Return the slides of a cohort's cases, or their patches (one slide a case), or their pictures.

    Raises:
        CohortError: the manifest is malformed.
        SlideError: it names no files of the kind.
    """
    from wsi_mivpg.cohorts.case import read_manifest
    from wsi_mivpg.errors import SlideError
    from wsi_mivpg.extraction import SlideInput, slide_input
    from wsi_mivpg.slides.readers.patch_folder import PatchFolder

    cases = read_manifest(manifest)
    if pictures:  # one may belong to several cases, so that its bag names none
        found = [replace(slide_input(path), is_picture=True) for case in cases for path in case.image_paths]
    elif patches:
        found = [
            SlideInput(
                one.case_id,
                one.image_paths[0].parent,
                one.case_id,
                None,
                PatchFolder(one.case_id, one.image_paths, None),
            )
            for one in cases
            if one.image_paths
        ]
    else:
        found = [replace(slide_input(path), case_id=case.case_id) for case in cases for path in case.slide_paths]
    if not found:
        kind = "pictures" if patches or pictures else "slides"
        way_out = "import it with --images" if patches or pictures else "pass --patches or --patch-tokens for pictures"
        raise SlideError(f"{manifest}: its cases name no {kind}; {way_out}")
    return found


def check_splits(*splits: str | None, option: str = "--split") -> None:
    """Refuse what is not the name of a split."""
    for split in splits:
        if split not in (None, "train", "val", "test"):
            raise typer.BadParameter(f"{split!r} is not train, val or test", param_hint=option)


def slide_settings(
    mpp: float | None,
    mpp_csv: Path | None,
    reader: str | None,
    fast_decode: bool,
    tissue: str,
    min_tissue: float = 0.25,
) -> "SlideSettings":
    """Return the settings that the shared options state.

    Raises:
        SlideError: the CSV is missing or malformed.
    """
    from wsi_mivpg.extraction import SlideSettings, read_mpp_csv

    mpp_of = {} if mpp_csv is None else read_mpp_csv(mpp_csv)
    return SlideSettings(mpp, mpp_of, reader, fast_decode, tissue, min_tissue)


def extract_all(
    found: Inputs,
    out_dir: Path,
    *,
    encoder: str,
    device: str = "cpu",
    settings: "SlideSettings | None" = None,
    overwrite: bool = False,
) -> "tuple[ExtractionResult, ...]":
    """Extract the found slides into `out_dir` with progress on stderr; slides that fail are noted in `found`.

    Slides that other runs hold are waited for: whoever needs all bags must not go on with some.

    Raises:
        EncoderError: the encoder is unknown or not installed.
    """
    if not found.slides:
        return ()
    from wsi_mivpg.extraction import SlideSettings
    from wsi_mivpg.extraction.devices import EncoderChoice, RunChoice, extract_on

    choice = RunChoice((EncoderChoice(encoder),), settings or SlideSettings(), overwrite=overwrite, wait=True)
    with extraction_progress() as on_progress:
        summary = extract_on([device], found.slides, out_dir, choice, on_progress, on_wait=note_waiting)
    note_failures(found, summary)
    return summary.results


@contextmanager
def extraction_progress() -> "Iterator[Callable[[Progress], None]]":
    """Yield what `extract_many` may call often, which shows on stderr how far a run is."""
    with console.progress("extract") as advance:

        def on_progress(now: "Progress") -> None:
            tiles = f"{now.slide_id} (slide {now.slide_number} of {now.n_slides}), tiles"
            advance(now.done, now.total, tiles if now.slide_id else "slides")

        yield on_progress


def note_failures(found: Inputs, summary: "ExtractionSummary") -> None:
    """Note the slides that failed, and warn of those without tissue and those that are left to other runs."""
    for failure in summary.failures:
        found.fail(failure.slide, failure.error)
    for result in summary.results:
        if not result.n_tiles:
            console.note(f"warning: {result.slide_id}: no tissue found, so its bag is empty; look at `info --qc`")
    for slide_id, holder in summary.elsewhere.items():
        console.note(f"{slide_id}: another run does it ({holder})")
    if n_elsewhere := len(summary.elsewhere):
        console.note(
            f"warning: {n_elsewhere} of {len(found.slides)} slides are left to other runs and may have no bag yet: "
            "run the same command again when those have ended, or pass --wait"
        )


def note_waiting(elsewhere: dict[str, str]) -> None:
    """Say which slides of other runs are waited for."""
    for slide_id, holder in elsewhere.items():
        console.note(f"{slide_id}: another run does it ({holder}); waiting until it is done, or that run dead")


def write_failures(folder: Path, found: Inputs) -> None:
    """Write all failures of a run to ``failures.csv`` (slide, error); with none, remove that file."""
    from wsi_mivpg.extraction.ledger import write_failures as write

    write(folder / "failures.csv", found.failures)
