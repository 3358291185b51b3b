"""How a model is asked: sections, structured fields under a JSON Schema, questions with a closed set of answers."""
