"""Schemas: what is shipped, what is refused and how, and texts that say what the values say."""

import functools
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from wsi_mivpg.cohorts.wording import FINDING_PHRASES
from wsi_mivpg.errors import PromptError
from wsi_mivpg.evaluation.clinical import read_report
from wsi_mivpg.evaluation.fields import extract_fields
from wsi_mivpg.prompting import load_schema
from wsi_mivpg.prompting.schema import SHIPPED, literals, nested, parse_schema
from wsi_mivpg.prompting.template import render

shipped = functools.cache(load_schema)


def text_of(name: str, **known: Any) -> str:
    """Return the text of a shipped schema where these fields are known and all others are null."""
    schema = shipped(name)
    values = [known.pop(field.name.replace(".", "__"), None) for field in schema.fields]
    assert not known
    return render(name, schema.template, nested(schema, values), {})


def test_the_json_around_the_values_is_json():
    for name in ("biopsy", "resection"):
        schema = shipped(name)
        texts = literals(schema)
        whole = "".join(f"{text} {place}" for place, text in enumerate(texts[:-1])) + texts[-1]
        assert json.loads(whole) == nested(schema, list(range(len(schema.fields))))


def test_the_words_around_the_values_are_the_sentence():
    schema = shipped("virtual-biopsy")
    texts = literals(schema)
    whole = "".join(f"{text}{{{field.name}}}" for text, field in zip(texts, schema.fields, strict=False)) + texts[-1]
    assert whole == schema.document["x-report"] == schema.sentence
    assert schema.prompt("Describe.") == "Describe."


def test_every_wording_of_a_virtual_finding_is_the_finding():
    diagnosis = shipped("virtual-biopsy").fields[2]
    for value, wordings in zip(diagnosis.values or (), diagnosis.wordings, strict=True):
        finding = next((key for key, phrases in FINDING_PHRASES.items() if value in phrases), None)
        assert [text.rstrip(".") for text in wordings] == list(FINDING_PHRASES.get(finding or "", ("not assessable",)))


def test_a_virtual_report_says_its_fields_and_is_read_back():
    facts = itertools.product(FINDING_PHRASES.items(), (5, 45, 100), (1, 4))
    for (finding, phrases), extent, foci in facts:
        phrase = phrases[0]
        text = text_of(
            "virtual-biopsy",
            organ="Lung",
            procedure="core biopsy",
            diagnosis=phrase,
            extent_percent=extent,
            foci=foci,
            adjacent="normal lung",
        )
        read = extract_fields(text)
        assert (read.organ, read.procedure, read.finding) == ("lung", "core biopsy", finding)
        assert (read.extent_percent, read.foci) == (extent, foci)
        assert text.endswith(", adjacent to normal lung.")


def test_texts_of_biopsies_and_resections():
    assert text_of(
        "biopsy",
        organ="prostate",
        laterality="left",
        procedure="core biopsy",
        diagnosis="acinar adenocarcinoma",
        grade="moderately differentiated",
        extent_percent=30,
        invasion__perineural=False,
        necrosis=True,
    ) == (
        "Prostate, left, core biopsy: acinar adenocarcinoma, moderately differentiated, involving approximately 30% of "
        "the tissue. Perineural invasion is not identified. Necrosis is present."
    )
    assert text_of(
        "resection",
        organ="colon",
        procedure="colectomy",
        diagnosis="adenocarcinoma",
        tumour_size_mm=42.5,
        stage__pT="pT3",
        stage__pN="pN0",
        margins__status="free",
        margins__closest_mm=12,
        lymph_nodes__examined=18,
        lymph_nodes__involved=0,
    ) == (
        "Colon, colectomy: adenocarcinoma. Greatest dimension: 42.5 mm. Pathological stage: pT3 pN0. Margins are free, "
        "the closest at 12 mm. Lymph nodes: 0 of 18 involved."
    )


@pytest.mark.parametrize("name", ["biopsy", "resection"])
def test_the_clinical_reader_knows_every_organ_and_procedure_that_a_schema_offers(name: str):
    for field in shipped(name).fields[:3:2]:
        assert field.name in ("organ", "procedure")
        for value in (field.values or ())[:-1]:
            read = read_report(text_of(name, **{field.name: value}))
            assert read.statements.get(field.name), value


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_assessable_makes_a_text_that_says_so(name: str):
    assert "not assessable" in text_of(name).lower()


REFUSED = {
    "{": "no JSON",
    "[]": "an object with properties|JSON object",
    '{"type": "object"}': "properties",
    '{"type": "object", "properties": {"a": {"type": "strin"}}}': "at properties/a/type",
    '{"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}}': "field a .*uniqueItems",
    '{"type": "object", "properties": {"a": {"not": {"type": "null"}}}}': "field a .*not",
    '{"type": "object", "properties": {"a": {"type": "string", "format": "postcode"}}}': "field a .*postcode",
    '{"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}': "field a.*leads nowhere",
    '{"type": "object", "properties": {"a": {"$ref": "https://example.org/x"}}}': "in the same file",
    '{"type": "object", "properties": {"a": {}}, "if": {}}': "'if' is not supported",
    '{"type": "object", "properties": {"a": {}}, "minProperties": 1}': "'minProperties' is not supported",
    '{"type": "object", "properties": {"a": {"enum": ["x"], "maxLength": 0}}}': "field a allows no value",
    '{"type": "object", "properties": {"a.b": {}}}': "dot",
    '{"type": "object", "properties": {"a": {"enum": ["x"]}}, "x-report": "It is {b}."}': "must name a, in this order",
    '{"type": "object", "properties": {"a": {"enum": ["x"]}}, "x-report": "It is {a}"}': "full stop",
    '{"type": "object", "properties": {"a": {"enum": ["x"]}, "b": {"enum": ["x"]}}, "x-report": "{a} {b}."}': "between",
    '{"type": "object", "properties": {"a": {"type": "string"}}, "x-report": "It is {a}."}': "field a.*can be counted",
    '{"type": "object", "properties": {"a": {"enum": ["x"], "x-wordings": {"y": ["z"]}}}, "x-report": "It is {a}."}': (
        "field a.*words 'y', which is no value"
    ),
    '{"type": "object", "properties": {"a": {"enum": ["x"], "x-wordings": {"x": "z"}}}, "x-report": "It is {a}."}': (
        "field a.*list of texts"
    ),
    '{"type": "object", "$defs": {"g": {"type": "object", "properties": {"g": {"$ref": "#/$defs/g"}}}}, '
    '"properties": {"a": {"$ref": "#/$defs/g"}}}': "lead to itself",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=REFUSED.values())
def test_a_schema_that_cannot_be_filled_is_refused_with_its_place(text: str, message: str):
    with pytest.raises(PromptError, match=rf"(?s)^own\.json.*({message})"):
        parse_schema("own.json", text)


def test_values_that_can_be_counted_are_listed_with_null_last():
    schema = parse_schema(
        "x",
        json.dumps(
            {
                "type": "object",
                "$defs": {"side": {"enum": ["left", "right", "left"]}},
                "properties": {
                    "side": {"$ref": "#/$defs/side"},
                    "extent": {"type": "integer", "minimum": 0, "maximum": 20, "multipleOf": 5},
                    "score": {"anyOf": [{"const": "none"}, {"type": "boolean"}]},
                    "many": {"type": "integer", "minimum": 0, "maximum": 500},
                },
            }
        ),
    )
    assert [field.values for field in schema.fields] == [
        ("left", "right", None),
        (0, 5, 10, 15, 20, None),
        ("none", True, False, None),
        None,
    ]


def test_own_schemas_bring_their_template_or_are_listed(tmp_path: Path):
    path = tmp_path / "mine.json"
    path.write_text('{"type": "object", "properties": {"tumour_size": {"enum": [3]}, "clear": {"type": "boolean"}}}')
    schema = load_schema(path)
    values = {"tumour_size": 3, "clear": None}
    assert render("mine", schema.template, values, values) == "Tumour size: 3.\nClear: not assessable."
    plain = schema.fingerprint
    path.with_suffix(".jinja").write_text("Size {{ tumour_size }}{{ ', clear' if clear }}.")
    schema = load_schema(path)
    assert render("mine", schema.template, values, values) == "Size 3."
    assert schema.fingerprint != plain


@pytest.mark.parametrize(
    ("template", "message"),
    [("{{ a", "malformed in line 1"), ("{{ b }}", "names 'b', which is no field"), ("{{ a.b.c }}", "cannot be filled")],
)
def test_a_template_that_does_not_fit_is_refused(tmp_path: Path, template: str, message: str):
    path = tmp_path / "mine.json"
    path.write_text('{"type": "object", "properties": {"a": {"type": "boolean"}}}')
    other = tmp_path / "words.jinja"
    other.write_text(template)
    with pytest.raises(PromptError, match=message):
        render("mine", load_schema(path, other).template, {"a": True}, {"a": True})


def test_a_template_cannot_leave_its_sandbox():
    for attack in ("{{ ().__class__.__mro__ }}", "{{ a.append(1) }}", "{{ range(10 ** 9) | list }}"):
        with pytest.raises(PromptError, match="cannot be filled"):
            render("evil", attack, {"a": []}, {})


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(PromptError, match="biopsy, resection, virtual-biopsy"):
        load_schema("biopsi")
    with pytest.raises(PromptError, match="cannot read"):
        load_schema("missing.json")
