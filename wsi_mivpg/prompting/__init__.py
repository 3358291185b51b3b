"""How a model is asked: sections, structured fields under a JSON Schema, questions with a closed set of answers."""

from wsi_mivpg.prompting.ask import Answer, AnswerScore, ask
from wsi_mivpg.prompting.fill import Filled, FilledField, fill, text_of, text_of_one
from wsi_mivpg.prompting.questions import YES_NO, Question, read_questions
from wsi_mivpg.prompting.schema import FieldSchema, load_schema
from wsi_mivpg.prompting.sections import Sections, parse_sections, section_names, sections_prompt

__all__ = [
    "YES_NO",
    "Answer",
    "AnswerScore",
    "FieldSchema",
    "Filled",
    "FilledField",
    "Question",
    "Sections",
    "ask",
    "fill",
    "load_schema",
    "parse_sections",
    "read_questions",
    "section_names",
    "sections_prompt",
    "text_of",
    "text_of_one",
]
