"""Filled fields: probabilities against brute force, values that are always valid, a text that is always the same."""

import itertools
import json
import math

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.prompting.conftest import CaptionerOf
from wsi_mivpg.captioner import CaseBags, SlideCaptioner, report_logprobs
from wsi_mivpg.captioner.generation import see
from wsi_mivpg.errors import ModelError
from wsi_mivpg.prompting import fill, load_schema
from wsi_mivpg.prompting.grammar import Vocabulary
from wsi_mivpg.prompting.schema import FieldSchema, parse_schema


def schema_of(**properties: object) -> FieldSchema:
    return parse_schema("test", json.dumps({"type": "object", "properties": properties}))


@torch.no_grad()
def text_logprob(captioner: SlideCaptioner, case: CaseBags, schema: FieldSchema, before: str, text: str) -> float:
    """Return log p(text | case, prompt, before), scored from the start in one piece."""
    vocabulary = Vocabulary.of(captioner)
    first, second = vocabulary.ids(before), vocabulary.ids(text)
    prompt = schema.prompt(captioner.config.prompt)
    whole = report_logprobs(captioner, see(captioner, case).visual[None], first + second, prompt)[0]
    return float(whole[len(first) :].double().sum())


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_probabilities_of_all_values_sum_to_one_and_are_those_of_scoring_each_directly(
    captioner_of: CaptionerOf, cases: list[CaseBags], family: str
):
    captioner = captioner_of(family)
    schema = schema_of(
        grade={"enum": ["low", "high", "low and high"]}, foci={"type": "integer", "minimum": 1, "maximum": 12}
    )
    for case, filled in zip(cases, fill(captioner, cases, schema, batch_size=3), strict=True):
        before = '{"grade":'
        for field, end in zip(filled.fields, ",}", strict=True):
            found = {json.dumps(field.value): field.probability} | {json.dumps(v): p for v, p in field.alternatives}
            assert sum(found.values()) == pytest.approx(1, abs=1e-6)
            direct = {
                value: math.exp(text_logprob(captioner, case, schema, before, f" {value}{end}")) for value in found
            }
            for value, probability in found.items():
                assert probability == pytest.approx(direct[value] / sum(direct.values()), rel=2e-3, abs=1e-7)
            assert field.exact
            assert field.probability == max(found.values())
            before += f' {json.dumps(field.value)}, "foci":'
        assert set(found) == {*map(str, range(1, 13)), "null"}


def test_a_written_value_has_the_product_of_its_probabilities_under_the_constraint(
    captioner: SlideCaptioner, cases: list[CaseBags]
):
    """Every string that the pattern allows is known, so that each step's share can be computed by hand."""
    schema = schema_of(code={"type": "string", "pattern": "^[ab][cd]$"})
    (field,) = fill(captioner, cases[:1], schema)[0].fields
    written = [f' "{one}{two}"}}' for one, two in itertools.product("ab", "cd")] + [" null}"]

    def under_the_constraint(text: str) -> float:
        """Return the product over places of the share of this character among those that may stand there."""
        share = 1.0
        for place in range(len(text)):
            may = {other[place] for other in written if other[:place] == text[:place]}
            before = '{"code":' + text[:place]
            all_of_them = {sign: math.exp(text_logprob(captioner, cases[0], schema, before, sign)) for sign in may}
            share *= all_of_them[text[place]] / sum(all_of_them.values())
        return share

    found = {json.dumps(field.value): field.probability} | {json.dumps(value): p for value, p in field.alternatives}
    assert len(found) >= 4  # the value, null, and turns
    assert "null" in found
    for value, probability in found.items():
        assert probability == pytest.approx(under_the_constraint(f" {value}}}"), rel=2e-3, abs=1e-7)
    assert sum(found.values()) <= 1 + 1e-6
    assert not field.exact


def test_a_report_in_words_has_the_summed_probabilities_of_all_wordings(
    captioner: SlideCaptioner, cases: list[CaseBags]
):
    document = {
        "type": "object",
        "x-report": "Grade {grade}, {foci}.",
        "properties": {
            "grade": {"enum": ["low", "high"], "x-wordings": {"low": ["low", "not high"], "high": ["high"]}},
            "foci": {"enum": [1, 2], "x-wordings": {"1": ["1 focus"], "2": ["2 foci"]}},
        },
    }
    schema = parse_schema("words", json.dumps(document))
    for case, filled in zip(cases, fill(captioner, cases, schema), strict=True):
        grade, foci = filled.fields
        ways = {"low": ["low", "not high"], "high": ["high"], None: ["not assessable"]}
        direct = {
            (value, text): math.exp(text_logprob(captioner, case, schema, "Grade", f" {text},"))
            for value, texts in ways.items()
            for text in texts
        }
        found = {grade.value: grade.probability, **dict(grade.alternatives)}
        for value, probability in found.items():
            of_value = sum(share for (other, _), share in direct.items() if other == value)
            assert probability == pytest.approx(of_value / sum(direct.values()), rel=2e-3, abs=1e-7)
        likeliest = max((text for value, text in direct if value == grade.value), key=lambda t: direct[grade.value, t])
        after = f"Grade {likeliest},"
        direct_foci = [
            math.exp(text_logprob(captioner, case, schema, after, f" {text}."))
            for text in ("1 focus", "2 foci", "not assessable")
        ]
        assert foci.probability == pytest.approx(max(direct_foci) / sum(direct_foci), rel=2e-3)


def test_nothing_is_asked_behind_a_wording_that_ends_the_report(captioner: SlideCaptioner, cases: list[CaseBags]):
    document = {
        "type": "object",
        "x-report": "It is {finding}, {foci}.",
        "properties": {
            "finding": {"enum": ["benign"], "x-wordings": {"benign": ["benign."], "null": ["no idea."]}},
            "foci": {"enum": [1, 2]},
        },
    }
    for filled in fill(captioner, cases, parse_schema("words", json.dumps(document))):
        finding, foci = filled.fields
        assert (foci.value, foci.probability) == (None, finding.probability)


def test_a_case_is_filled_alike_whatever_stands_beside_it(captioner: SlideCaptioner, cases: list[CaseBags]):
    schema = schema_of(
        site={"type": "string", "maxLength": 6},
        margin={"type": "object", "properties": {"free": {"type": "boolean"}}},
    )
    alone = [fill(captioner, [case], schema, 1)[0] for case in cases]
    together = fill(captioner, cases, schema, 4)
    assert [one.values for one in alone] == [one.values for one in together]
    assert [one.text for one in alone] == [one.text for one in together]
    for one, other in zip(alone, together, strict=True):
        assert [field.probability for field in one.fields] == pytest.approx(
            [f.probability for f in other.fields], abs=1e-5
        )


def test_what_the_slide_shows_changes_probabilities(captioner: SlideCaptioner, cases: list[CaseBags]):
    schema = schema_of(foci={"type": "integer", "minimum": 1, "maximum": 9})
    found = [round(one.fields[0].probability, 6) for one in fill(captioner, cases, schema)]
    assert len(set(found)) == len(cases)


def test_a_value_without_end_becomes_null_and_says_so(captioner: SlideCaptioner, cases: list[CaseBags]):
    schema = schema_of(**{name: {"type": "string", "minLength": 200} for name in "ab"})
    fields = [field for one in fill(captioner, cases, schema) for field in one.fields]
    assert {field.value for field in fields} == {None}
    assert {field.cut for field in fields} == {True, False}  # a string was begun, or null was the choice
    for field in fields:
        assert field.cut == (field.probability < 0.5)  # of null, in both cases


def test_groups_and_nulls_stand_in_the_values_as_in_the_schema(captioner: SlideCaptioner, cases: list[CaseBags]):
    schema = load_schema("resection")
    (one,) = fill(captioner, cases[:1], schema)
    jsonschema.validate(one.values, schema.nullable)
    assert list(one.values) == list(schema.document["properties"])
    assert [field.name for field in one.fields] == [field.name for field in schema.fields]
    assert one.values["margins"].keys() == {"status", "closest_mm"}


def test_fill_refuses_what_it_cannot_do(captioner: SlideCaptioner, cases: list[CaseBags], captioner_of: CaptionerOf):
    with pytest.raises(ModelError, match=r"cannot write .*größe"):
        fill(captioner, cases[:1], schema_of(größe={"type": "boolean"}))
    with pytest.raises(ModelError, match="positions of the language model"):
        fill(captioner_of("opt"), cases[:1], load_schema("biopsy"))
    nothing = CaseBags("broken", torch.full((3, 12), torch.nan), (3,))
    with pytest.raises(ModelError, match="'broken'"):
        fill(captioner, [nothing], schema_of(a={"type": "string"}))
    captioner.train()
    try:
        with pytest.raises(ModelError, match="evaluation mode"):
            fill(captioner, cases[:1], schema_of(a={"type": "boolean"}))
    finally:
        captioner.eval()


_LEAF = st.one_of(
    st.just({"type": "boolean"}),
    st.lists(st.sampled_from(["a", "b c", 1, 2.5, True, None]), min_size=1, max_size=3, unique_by=json.dumps).map(
        lambda values: {"enum": values}
    ),
    st.tuples(st.integers(-3, 3), st.integers(0, 300)).map(
        lambda pair: {"type": "integer", "minimum": pair[0], "maximum": pair[0] + pair[1]}
    ),
    st.integers(0, 4).map(lambda most: {"type": "string", "maxLength": most}),
    st.just({"type": "number"}),
    st.just({"type": "string", "format": "date"}),
    st.integers(0, 2).map(lambda most: {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": most}),
    st.just({"type": "object", "properties": {"n": {"type": "integer"}, "s": {"enum": ["l", "r"]}}}),
    st.just({"anyOf": [{"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 4}, {"const": "none"}]}),
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    properties=st.dictionaries(st.sampled_from(["a", "b", 'c"', "d e"]), _LEAF, min_size=1, max_size=2),
    seed=st.integers(0, 99),
)
def test_what_is_filled_in_is_always_valid(
    captioner: SlideCaptioner, cases: list[CaseBags], properties: dict[str, object], seed: int
):
    generator = torch.Generator().manual_seed(seed)
    head = captioner.language_projection
    before = head.weight.detach().clone()
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
    try:
        schema = schema_of(**properties)
        (filled,) = fill(captioner, cases[:1], schema)
    finally:
        with torch.no_grad():
            head.weight.copy_(before)
    jsonschema.validate(filled.values, schema.nullable)
    assert json.loads(json.dumps(filled.values, allow_nan=False)) == filled.values
    for field in filled.fields:
        assert 0 <= field.probability <= 1 + 1e-9
