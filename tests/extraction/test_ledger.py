"""The status files of a folder cost a run little, however many slides the folder holds."""

from wsi_mivpg.extraction import ledger


def test_status_that_takes_long_to_write_is_written_less_often(tmp_path, monkeypatch):
    now, written = [100.0], []
    monkeypatch.setattr(ledger.time, "monotonic", lambda: now[0])

    def slow_write(self):
        written.append(now[0])
        now[0] += 3.0
        self._written_at = now[0]
        return []

    monkeypatch.setattr(ledger.Ledger, "_merged", slow_write)
    status = ledger.Ledger(tmp_path)
    for number in range(130):
        status.record(ledger.StatusRow(f"slide-{number}", "x", "", "done"))
        now[0] += 1.0
    assert len(written) == 3  # 3 s each, and 60 s between: a twentieth of the time


def test_status_that_is_quick_to_write_is_there_within_seconds(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(ledger.time, "monotonic", lambda: now[0])
    status = ledger.Ledger(tmp_path)
    for number in range(7):
        status.record(ledger.StatusRow(f"slide-{number}", "https://host/x", "", "done"))
        now[0] += 1.0
    assert len(ledger.read_status(tmp_path / "status.csv")) == 6
