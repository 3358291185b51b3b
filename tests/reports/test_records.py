"""reports.jsonl while runs write it, are killed, and write it again."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsi_mivpg.errors import OutputError, TextsError
from wsi_mivpg.reports import Provenance, Records, Report, held_records, read_jsonl


def report(case_id: str, settings_hash: str = "one", text: str = "Grüße.\u2028Zweite Zeile.") -> Report:
    return Report(case_id=case_id, text=text, provenance=Provenance(created="now"), settings_hash=settings_hash)


def written(folder: Path, *reports: Report) -> bytes:
    with held_records(folder) as records:
        for one in reports:
            records.add(one)
    return (folder / "reports.jsonl").read_bytes()


def test_a_line_that_was_cut_anywhere_is_removed_and_only_its_case_is_missing(tmp_path: Path):
    whole = written(tmp_path, report("a"), report("b"), report("c"))
    lines = whole.splitlines(keepends=True)
    kept = len(lines[0]) + len(lines[1])
    for cut in range(kept, len(whole)):
        (tmp_path / "reports.jsonl").write_bytes(whole[:cut])
        with held_records(tmp_path) as records:
            assert set(records.hashes) == {"a", "b"}
        assert (tmp_path / "reports.jsonl").read_bytes() == whole[:kept]
    assert written(tmp_path, report("c")) == whole


def test_a_case_that_is_done_again_replaces_its_line_and_the_others_keep_their_bytes(tmp_path: Path):
    lines = written(tmp_path, report("a"), report("b"), report("c")).splitlines(keepends=True)
    again = report("b", "two")
    after = written(tmp_path, again).splitlines(keepends=True)
    assert after[:2] == [lines[0], lines[2]]
    assert read_jsonl(tmp_path / "reports.jsonl")[2] == again
    with held_records(tmp_path) as records:
        assert records.hashes == {"a": "one", "c": "one", "b": "two"}


def test_lines_that_take_older_ones_places_are_exchanged_together_and_none_is_lost_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = written(tmp_path, *(report(name) for name in "abcd"))
    exchanged = []
    exchange = Records._exchange
    monkeypatch.setattr(Records, "_exchange", lambda self: (exchanged.append(1), time.sleep(0.05), exchange(self)))

    def interrupted_run() -> None:
        with held_records(tmp_path) as records:
            records.add(report("a", "two"))
            after_first = (tmp_path / "reports.jsonl").read_bytes()
            for name in "bc":
                records.add(report(name, "two"))
            # The next exchange may come after twenty times as long as the last one took.
            assert (tmp_path / "reports.jsonl").read_bytes() == after_first != before
            records.add(report("e", "two"))  # a new case's line waits for nothing
            assert (tmp_path / "reports.jsonl").read_bytes().startswith(after_first)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_run()
    found = read_jsonl(tmp_path / "reports.jsonl")
    assert sorted((one.case_id, str(one.settings_hash)) for one in found) == [
        *((name, "two") for name in "abc"),
        ("d", "one"),
        ("e", "two"),
    ]
    assert len(exchanged) == 2


def test_one_run_at_a_time_writes_a_folder_and_the_next_one_may_when_it_is_over_or_dead(tmp_path: Path):
    with held_records(tmp_path), pytest.raises(OutputError, match="another run is writing reports"):
        held_records(tmp_path).__enter__()
    assert not list(tmp_path.iterdir())
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom wsi_mivpg.reports import held_records\n"
        "with held_records(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert written(tmp_path, report("a"))


def test_a_line_that_is_no_report_of_this_version_is_named_before_any_work(tmp_path: Path):
    whole = written(tmp_path, report("a"))
    (tmp_path / "reports.jsonl").write_bytes(whole + b'{"case_id": "old"}\n')
    with pytest.raises(TextsError, match=r"reports\.jsonl, line 2 is not a report"), held_records(tmp_path):
        pass


def test_what_a_full_disk_took_of_a_line_is_cut_again(tmp_path: Path):
    whole = written(tmp_path, report("a"))
    child = os.fork()
    if not child:  # the limit would hold for the tests, too
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 40, len(whole) + 40))
        try:
            written(tmp_path, report("b"))
        except OutputError as problem:
            os._exit(7 if "free space there" in str(problem) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert (tmp_path / "reports.jsonl").read_bytes() == whole
