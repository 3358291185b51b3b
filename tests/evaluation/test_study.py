"""A whole evaluation shows every figure with its interval, signature or reason, in four forms that agree."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_mivpg.cohorts.wording import FINDING_PHRASES, write_report
from wsi_mivpg.evaluation.controls import System
from wsi_mivpg.evaluation.joining import JoinReport, Pairs
from wsi_mivpg.evaluation.page import evaluation_page, marked
from wsi_mivpg.evaluation.study import Settings, Study, run_study
from wsi_mivpg.evaluation.tables import as_json, as_markdown, as_text

FAST = Settings(n_resamples=100)


def drawn(n: int, seed: int = 0) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    truths = []
    for _ in range(n):
        finding = list(FINDING_PHRASES)[int(rng.integers(5))]
        is_benign = finding == "benign"
        truths.append(
            {
                "organ": "Lung",
                "procedure": "core biopsy",
                "finding": finding,
                "extent_percent": 0.0 if is_benign else float(rng.uniform(1, 95)),
                "n_foci": 0 if is_benign else int(rng.integers(1, 7)),
                "touches": ["lymphoid"][: int(rng.integers(2))],
                "shares": {"parenchyma": 0.6, "stroma": 0.4},
            }
        )
    return truths


def worded(truths: list[dict[str, object]], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [write_report(truth, rng) for truth in truths]


def joined(n: int) -> JoinReport:
    return JoinReport(n, n, n, (), (), (), (), "refuse", False)


def study_of(n: int = 40, chosen: Settings = FAST, **rest: object) -> Study:
    """A model that knows the truth, itself on shuffled slides, and a system that always writes the same."""
    truths = drawn(n)
    texts, references = worded(truths, 1), worded(truths, 2)
    pairs = Pairs(tuple(f"c{i}" for i in range(n)), tuple(texts), tuple((one,) for one in references))
    others = [
        System("shuffled", "control", tuple(np.roll(texts, 1).tolist())),
        System("constant", "baseline", ("Lung, core biopsy: necrosis.",) * n),
    ]
    return run_study(
        System("model", "model", tuple(texts)),
        others,
        pairs,
        joined(n),
        chosen,
        truths=truths,
        train_texts=texts[:3],
        **rest,
    )


@pytest.fixture(scope="module")
def study() -> Study:
    return study_of()


def test_a_model_that_sees_the_slide_beats_itself_on_other_slides(study: Study):
    shuffled = next(one for one in study.comparisons if one.system == "shuffled")
    assert shuffled.is_image_control
    assert shuffled.differences["truth.finding_accuracy"].favours == "A"
    assert shuffled.differences["truth.finding_accuracy"].p < 0.01
    assert shuffled.unchanged < 0.2


def test_a_model_that_ignores_the_slide_is_not_told_apart_from_its_control():
    n = 30
    truths = drawn(n)
    rng = np.random.default_rng(0)
    blind = [worded([drawn(1, int(rng.integers(1e6)))[0]], i)[0] for i in range(n)]
    pairs = Pairs(tuple(map(str, range(n))), tuple(blind), tuple((one,) for one in worded(truths, 2)))
    shuffled = System("shuffled", "control", tuple(np.roll(blind, 7).tolist()))
    found = run_study(System("model", "model", tuple(blind)), [shuffled], pairs, joined(n), FAST, truths=truths)
    assert found.comparisons[0].differences["truth.finding_accuracy"].p_holm > 0.05


def test_every_figure_has_an_interval_or_a_reason_and_every_metric_a_signature(study: Study):
    for system in study.systems:
        for name, score in system.scores.items():
            assert name in study.signatures or system.name != "model"
            if score.value is None or score.low is None:
                assert score.reason, (system.name, name)
            else:
                assert score.low <= score.high
    model = study.systems[0].scores
    assert {"bleu_4", "rouge_l", "cider_d", "cider_length_free", "truth.finding_accuracy", "verbatim_in_train"} <= set(
        model
    )
    assert model["truth.finding_accuracy"].value == 1.0


def test_what_is_not_there_is_named_with_the_way_to_get_it(study: Study):
    assert "--control text-only=FILE" in study.absent["text-only language model"]
    assert "image dependence" not in study.absent
    alone = run_study(
        System("model", "model", ("x", "y")), [], Pairs(("a", "b"), ("x", "y"), (("x",), ("y",))), joined(2), FAST
    )
    assert "--control shuffled=FILE" in alone.absent["image dependence"]
    assert "--train" in alone.absent["verbatim_in_train"]
    assert any("patient" in note for note in alone.notes)


def test_json_holds_no_nan_and_every_null_has_its_reason(study: Study):
    text = json.dumps(as_json(study), allow_nan=False)
    assert "NaN" not in text
    for system in json.loads(text)["systems"]:
        for score in system["scores"].values():
            assert score["value"] is not None or score["reason"]


def test_one_pair_alone_has_no_nan_and_says_why_cider_and_intervals_are_undefined():
    pairs = Pairs(("a",), ("Lung: necrosis.",), (("Lung: necrosis.",),))
    found = run_study(System("model", "model", pairs.predictions), [], pairs, joined(1), FAST)
    assert found.systems[0].scores["cider_d"].value is None
    for shown in (
        as_text(found),
        as_markdown(found),
        evaluation_page(found),
        json.dumps(as_json(found), allow_nan=False),
    ):
        assert not re.search(r"\bnan\b", shown, re.IGNORECASE)
        assert "with one case every weight is log(1/1) = 0" in shown.replace("&#39;", "'")
    assert found.systems[0].scores["rouge_l"].reason == "one patient: nothing to resample"
    assert "one patient: nothing to resample" in as_markdown(found)


def test_all_texts_empty_is_scored_and_shown():
    pairs = Pairs(("a", "b"), ("", ""), (("x y",), ("z",)))
    found = run_study(System("model", "model", pairs.predictions), [], pairs, joined(2), FAST)
    assert found.systems[0].scores["bleu_1"].value == pytest.approx(0.0, abs=1e-6)
    assert found.systems[0].scores["empty"].value == 1.0
    assert "nan" not in as_text(found).lower()


def test_table_markdown_json_and_page_show_the_same_figures(study: Study):
    data = as_json(study)
    score = data["systems"][0]["scores"]["rouge_l"]
    shown = f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
    assert shown in as_text(study)
    assert shown in as_markdown(study)
    assert shown in evaluation_page(study)
    for name, signature in study.signatures.items():
        assert f"`{name}`: `{signature}`" in as_markdown(study)


def test_a_bleu_above_one_is_explained_where_it_is_shown():
    text = "a b c d a b c d"
    pairs = Pairs(("a", "b"), (text, "x"), ((text,), ("y",)))
    chosen = Settings(presets=("reg2025",), n_resamples=100)
    found = run_study(System("model", "model", pairs.predictions), [], pairs, joined(2), chosen)
    assert found.systems[0].scores["reg2025_bleu"].value == pytest.approx(1.4 / 2)
    assert any("7/5 = 1.4" in note for note in found.notes)
    assert not any("1.4" in note for note in study_of(5).notes)


TEXTS = st.text(alphabet=st.sampled_from("ab no.,;5%\n\u2028é<"), max_size=30)


@settings(max_examples=25)
@given(st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip)), min_size=1, max_size=4))
def test_any_texts_give_tables_without_nan(texts: list[tuple[str, str]]):
    names = tuple(map(str, range(len(texts))))
    pairs = Pairs(names, tuple(one for one, _ in texts), tuple((one,) for _, one in texts))
    every = Settings(presets=("words", "r2gen", "sacrebleu", "rouge-score"), n_resamples=100)
    other = System("other", "compared", tuple(one for _, one in texts))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("wsi_mivpg.evaluation.presets.java_missing", lambda: "not here")
        found = run_study(System("model", "model", pairs.predictions), [other], pairs, joined(len(texts)), every)
    json.dumps(as_json(found), allow_nan=False)
    for system in found.systems:
        assert all(score.reason for score in system.scores.values() if score.value is None or score.low is None)
    evaluation_page(found)
    as_markdown(found)


def test_the_worst_cases_come_first_flipped_negations_before_all():
    texts = ("Lung: necrosis.", "Lung: no carcinoma.", "bad")
    references = (("Lung: necrosis.",), ("Lung: carcinoma.",), ("Lung: stroma.",))
    pairs = Pairs(("good", "flipped", "bad"), texts, references)
    found = run_study(System("model", "model", texts), [], pairs, joined(3), FAST)
    assert [case.case_id for case in found.worst] == ["flipped", "bad", "good"]
    assert "negation: carcinoma" in found.worst[0].only_prediction
    assert "histological_type: carcinoma" in found.worst[0].only_reference
    fewer = Settings(n_resamples=100, n_worst=1)
    assert len(run_study(System("model", "model", texts), [], pairs, joined(3), fewer).worst) == 1


class Tags(HTMLParser):
    """Collects tags and text, and fails on a tag that closes another."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_escapes_texts_and_needs_nothing_from_outside():
    texts = ('<script>alert(1)</script> & "x"', "y")
    pairs = Pairs(("<b>id</b>", "b"), texts, (("<i>z</i>",), ("y",)))
    page = evaluation_page(run_study(System("model", "model", texts), [], pairs, joined(2), FAST))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not tags.seen & {"script", "img", "link", "iframe", "i", "b"}
    assert "alert(1)" in tags.text
    assert "http" not in re.sub(r"http-equiv", "", page)


def test_differing_words_are_marked_and_the_text_stays_the_same():
    shown = str(marked("Lung: squamous <carcinoma>", "Lung: no carcinoma"))
    assert shown == "Lung: <mark>squamous &lt;carcinoma&gt;</mark>"
    assert marked("a " * 5000, "b") == "a " * 5000


def test_markdown_tables_have_as_many_cells_as_their_headers(study: Study):
    width = None
    for line in as_markdown(study).splitlines():
        if not line.startswith("|"):
            width = None
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        assert width in (None, cells), line
        width = cells


def test_numbers_of_absurd_length_leave_no_infinity_in_the_table():
    texts = (f"Lung, core biopsy: carcinoma in {'9' * 5000} foci, {'9' * 400}%.", "Lung: carcinoma in 2 foci.")
    pairs = Pairs(("a", "b"), texts, (("Lung, core biopsy: carcinoma in 2 foci, 3%.",),) * 2)
    found = run_study(System("model", "model", texts), [], pairs, joined(2), FAST, truths=drawn(2))
    assert not re.search(r"\b(nan|inf)\b", as_text(found))
    assert as_json(found)["n_cases"] == 2


@pytest.mark.parametrize("extent", [None, float("nan"), "much"])
def test_a_truth_without_a_number_for_the_extent_is_absent_with_its_reason(extent: object):
    truths = [{**truth, "extent_percent": extent} for truth in drawn(2)]
    pairs = Pairs(("a", "b"), ("x", "y"), (("x",), ("y",)))
    found = run_study(System("model", "model", pairs.predictions), [], pairs, joined(2), FAST, truths=truths)
    assert not [name for name in found.systems[0].scores if name.startswith("truth.")]
    assert "extent_percent" in found.absent["truth"]


def test_a_metric_that_one_system_alone_has_gets_its_signature_and_the_others_dash_its_reason():
    pairs = Pairs(("a", "b"), ("Lung: necrosis.",) * 2, (("Lung: necrosis.",),) * 2)
    other = System("other", "compared", ("Lung: carcinoma, grade 2.",) * 2)
    found = run_study(System("model", "model", pairs.predictions), [other], pairs, joined(2), FAST)
    assert "field.grade.precision" in found.signatures
    shown = as_text(found)
    assert re.search(r"field.grade.precision .*– .*0.000", shown)
    assert "field.grade.precision (model)" in shown
    assert "neither the system's texts nor the references state it" in shown
