"""Pseudonyms: the same for the same key, other for another, and nothing of the ids and places is left."""

import hashlib
import hmac
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reports.forms.whole import UIDS, whole_report
from wsi_mivpg.errors import OutputError
from wsi_mivpg.reports import Report
from wsi_mivpg.reports.forms import pseudonym, pseudonymised, read_key
from wsi_mivpg.reports.html import file_name

KEY = b"0123456789abcdef0123456789abcdef"


def told(report: Report) -> str:
    return json.dumps(report.model_dump(mode="json", exclude={"disclaimer"}), ensure_ascii=False)


def test_a_pseudonym_is_the_keyed_hash_and_nothing_else():
    expected = hmac.new(KEY, b"S-77/2026", hashlib.sha256).hexdigest()[:20]
    assert pseudonym(KEY, "S-77/2026") == f"p{expected}"
    assert pseudonymised(whole_report(), KEY).case_id == f"p{expected}"
    assert pseudonymised(whole_report(), KEY) == pseudonymised(whole_report(), KEY)
    assert pseudonymised(whole_report(), KEY[::-1]).case_id != f"p{expected}"


def test_no_id_no_place_no_uid_and_no_hash_of_a_file_is_left():
    text = told(pseudonymised(whole_report(), KEY))
    stem = file_name("S-77/2026").removesuffix(".html")
    hashes = ("cd" * 32, "ef" * 32, "deadbeef")
    for secret in ("S-77", "Doe", "/data", "bags/", stem, *UIDS.model_dump().values(), *hashes):
        assert secret.lower() not in text.lower(), secret


def test_what_is_no_id_stays():
    before, after = whole_report(), pseudonymised(whole_report(), KEY)
    assert after.text == before.text
    assert after.provenance == before.provenance
    assert after.fields == before.fields
    assert after.warnings == (f"Slide {pseudonym(KEY, 'S-77 A')}: only 30 tiles of tissue were found.",)
    assert after.sentences[0].top_tiles[0].slide_id == after.slides[0].slide_id == pseudonym(KEY, "S-77 A")
    assert re.fullmatch(r"2\.25\.[1-9]\d{0,38}", after.slides[0].dicom.study_uid)
    assert after.model == before.model


def test_an_id_in_the_text_is_blacked_out_and_sentences_keep_their_places():
    first = "Specimen s-77/2026 shows tumour."
    report = whole_report(
        text=f"{first} Slide S-77 A is pale.",
        sentences=[{"text": first, "start": 0, "end": len(first), "logprob": -1, "method": "attention"}],
    )
    after = pseudonymised(report, KEY)
    assert after.text == f"Specimen {'█' * 9} shows tumour. Slide {'█' * 6} is pale."
    assert after.sentences[0].text == after.text[: len(first)]


def test_a_models_folder_is_dropped_but_a_hubs_owner_is_not():
    assert pseudonymised(whole_report(model={"name": "/home/doe/models/lung"}), KEY).model["name"] == "lung"
    assert pseudonymised(whole_report(model={"name": "owner/lung"}), KEY).model["name"] == "owner/lung"


def test_a_case_without_a_name_does_not_put_pseudonyms_everywhere():
    after = pseudonymised(whole_report(case_id="", slides=(), top_tiles=(), sentences=()), KEY)
    assert after.text == whole_report().text
    assert after.fields == whole_report().fields


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1, max_size=12))
def test_whatever_the_case_is_called_it_becomes_a_pseudonym_everywhere(name):
    report = whole_report(case_id=name, slides=(), warnings=(f"({name})", f"see {name}."), forced=(), gates=())
    after = pseudonymised(report, KEY)
    hidden = pseudonym(KEY, name)
    assert after.case_id == hidden
    assert hidden in after.warnings[0]
    assert len(after.text) == len(report.text)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "0 bytes"), (b"short key", "9 bytes"), (b"a" * 64, "can be guessed"), (None, "cannot read the key")],
)
def test_a_bad_key_is_refused_with_the_way_to_a_good_one(tmp_path, content, complaint):
    path = tmp_path / "key.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OutputError, match=complaint) as problem:
        read_key(path)
    assert str(path) in str(problem.value)
    assert "openssl rand -hex 32" in str(problem.value)


def test_a_line_break_at_its_end_does_not_change_a_key(tmp_path):
    (tmp_path / "key.txt").write_bytes(KEY + b"\r\n")
    assert read_key(tmp_path / "key.txt") == KEY
