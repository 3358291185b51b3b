"""A new demonstration model replaces the old one together with what was calibrated for it."""

from pathlib import Path

import demo


def test_trust_gates_stay_with_their_weights_and_go_with_others(tmp_path: Path) -> None:
    made, package = tmp_path / "made", tmp_path / "package"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"one")
    demo.install(made, package)
    gates = package / "trust.safetensors"
    gates.write_bytes(b"calibrated for one")
    demo.install(made, package)
    assert gates.exists()
    (made / "model.safetensors").write_bytes(b"two")
    demo.install(made, package)
    assert not gates.exists()
    assert (package / "model.safetensors").read_bytes() == b"two"
