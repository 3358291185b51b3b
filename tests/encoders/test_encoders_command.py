"""`wsi-mivpg encoders` shows the registry and the way to each encoder, without loading torch."""

import json
import subprocess
import sys

from wsi_mivpg.cli.encoders import encoders
from wsi_mivpg.encoders import REGISTRY


def test_the_table_has_a_row_for_every_encoder_and_the_ways_to_get_them(capsys):
    encoders()
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1 : 1 + len(REGISTRY)]}
    assert rows.keys() == REGISTRY.keys()
    assert rows["uni2-h"].split()[:6] == ["uni2-h", "1536", "224", "0.5", "bf16", "CC-BY-NC-ND-4.0"]
    assert "hub: MahmoodLab/UNI2-h" in rows["uni2-h"] or "yes    yes" in rows["uni2-h"]
    text = "\n".join(lines)
    for way in ("hf auth login", "--weights PATH", "--trust-remote-code", "module:function", "TransPath"):
        assert way in text


def test_json_has_every_field_and_the_pinned_commit(capsys):
    encoders(as_json=True)
    data = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    uni = data["uni"]
    assert uni["revision"] == REGISTRY["uni"].revision
    assert uni["available"] or uni["revision"] in uni["how_to_get"]
    assert uni["mean"] == [0.485, 0.456, 0.406]


def test_the_command_loads_neither_torch_nor_timm():
    code = (
        "import sys\nfrom wsi_mivpg.cli.encoders import encoders\nencoders()\n"
        "sys.exit(bool({'torch', 'timm', 'transformers'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0
