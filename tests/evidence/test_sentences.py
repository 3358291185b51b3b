"""A report is cut where a reader would, and every token knows its sentence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.tiny_captioner import tiny_tokenizer
from wsi_mivpg.errors import TextsError
from wsi_mivpg.evidence import phrase_tokens, sentence_spans
from wsi_mivpg.evidence.sentences import sentence_bounds

CUTS = [
    (["Adenocarcinoma of the colon, pT3 pN1a (3/14).", "Margins are free.", "No. 2 shows necrosis."], " "),
    (["1. Adenocarcinoma", "2. Chronic gastritis, see No. 2.", "3. No malignancy."], "\n "),
    (["Final diagnosis:", "Lung; adenocarcinoma, 20%.", "The largest focus measures 0.5 mm.", "Two foci."], "\n  "),
    (["Reviewed by Dr. X. Müller on 3.4.2020.", "Ki-67 is 15 %."], " "),
    (["A) Lung, RUL.", "B) Lymph node, level 4R: no tumor (0/3).", "C. Pleura."], " "),
    (["pT3 pN1a (3/14)."], " "),
]


@pytest.fixture(scope="module")
def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE, as most language models have: it cuts characters beyond ASCII into several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [between.join(sentences) for sentences, between in CUTS] * 4
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


@pytest.mark.parametrize(("sentences", "between"), CUTS)
def test_pathology_is_cut_as_a_reader_would(sentences: list[str], between: str) -> None:
    text = between.join(sentences)
    assert [text[start:end] for start, end in sentence_bounds(text)] == sentences


REPORT_LIKE = st.text(st.sampled_from("abT N12.:;,()/%-\n µé肺😀"), max_size=80) | st.text(max_size=40)


@settings(max_examples=60, deadline=None)
@given(text=REPORT_LIKE)
def test_sentences_are_in_order_apart_and_leave_out_white_space_alone(text: str) -> None:
    covered = [False] * len(text)
    last = 0
    for start, end in sentence_bounds(text):
        assert last <= start < end
        assert text[start:end] == text[start:end].strip()
        covered[start:end] = [True] * (end - start)
        last = end
    assert all(seen or character.isspace() for seen, character in zip(covered, text, strict=True))


@settings(max_examples=60, deadline=None)
@given(text=REPORT_LIKE.map(str.strip), lead=st.sampled_from(["", " ", "\n "]), ends=st.booleans())
def test_every_token_is_of_exactly_one_sentence_and_the_end_of_none(
    bytes_tokenizer: PreTrainedTokenizerFast, text: str, lead: str, ends: bool
) -> None:
    ids = bytes_tokenizer(lead + text)["input_ids"]
    given_ids = [*ids, bytes_tokenizer.eos_token_id] if ends else ids
    spans = sentence_spans(bytes_tokenizer, given_ids, text)
    if not spans:
        assert not text
        return
    assert [place for span in spans for place in span.tokens] == list(range(len(ids)))
    assert "".join(text[span.start : span.end] for span in spans) == "".join(span.text for span in spans)
    assert bytes_tokenizer.decode(ids[: spans[0].tokens.stop]).strip().startswith(spans[0].text)


def test_a_sentences_tokens_say_the_sentence(bytes_tokenizer: PreTrainedTokenizerFast) -> None:
    for sentences, between in CUTS:
        text = between.join(sentences)
        ids = bytes_tokenizer(text)["input_ids"]
        spans = sentence_spans(bytes_tokenizer, ids, text)
        said = [bytes_tokenizer.decode([ids[place] for place in span.tokens]).strip() for span in spans]
        assert said == sentences


def test_a_phrases_tokens_say_the_phrase() -> None:
    tokenizer = tiny_tokenizer()
    text = "Lung: necrosis, in 20%."
    ids = tokenizer(text)["input_ids"]
    at = text.index("necrosis")
    places = phrase_tokens(tokenizer, ids, text, at, at + len("necrosis"))
    assert tokenizer.decode([ids[place] for place in places]).strip() == "necrosis"


def test_tokens_of_another_report_are_refused() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(TextsError, match="the tokens say 'benign', but the report's text is 'necrosis'"):
        sentence_spans(tokenizer, tokenizer("benign")["input_ids"], "necrosis")
