"""Encodes prompts to embeddings."""

import re
from dataclasses import dataclass, field, replace

import torch
from torch.nn.attention import sdpa_kernel
from transformers import BatchEncoding, PreTrainedTokenizerBase, T5EncoderModel

from keyreel.checkpoints.memory import PROMPT_TOKENS
from keyreel.engine.devices import attention_backends
from keyreel.engine.recent import Recent

CACHED_BYTES = 256 * 1024 * 1024
"""Bytes of cached embeddings: 128 of the longest prompts of the 13B model in bf16."""
WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Text:
    """An encoded prompt.

    embedding: (1, L, E) on the model's device. is_cut: whether the prompt was too long. unknown: its words that the
    model cannot tell from each other, each once.
    """

    embedding: torch.Tensor
    is_cut: bool
    unknown: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Text":
        return replace(self, embedding=self.embedding.to(device))


def _recent_texts() -> Recent[Text]:
    return Recent(CACHED_BYTES, lambda text: text.embedding.nbytes)


@dataclass(frozen=True, slots=True)
class PromptEncoder:
    """T5 and its tokenizer, of one model. Keeps recent embeddings in main memory: most requests share their negative
    prompt, and many follow others with the same prompt.
    """

    tokenizer: PreTrainedTokenizerBase
    encoder: T5EncoderModel
    device: torch.device
    recent: Recent[Text] = field(default_factory=_recent_texts)

    def encode(self, prompt: str) -> Text:
        if (known := self.recent.get(prompt)) is not None:
            return known.to(self.device)
        text = self._encode(prompt)
        self.recent.put(prompt, text.to(torch.device("cpu")))
        return text

    def _encode(self, prompt: str) -> Text:
        # Unpadded, so no mask is needed: neither T5 nor the transformer would attend to padding.
        prompt = prompt.strip()
        encoded = self.tokenizer(
            prompt, return_tensors="pt", return_offsets_mapping=self.tokenizer.is_fast, verbose=False
        )
        tokens = encoded.input_ids
        is_cut = tokens.shape[1] > PROMPT_TOKENS
        if is_cut:
            tokens = torch.cat((tokens[:, : PROMPT_TOKENS - 1], tokens[:, -1:]), dim=1)
        # T5 adds a bias for the distance of two tokens.
        with sdpa_kernel(attention_backends(self.device, biased=True), set_priority=True):
            embedding = self.encoder(tokens.to(self.device)).last_hidden_state
        return Text(embedding, is_cut, self._unknown_words(prompt, encoded))

    def _unknown_words(self, prompt: str, encoded: BatchEncoding) -> tuple[str, ...]:
        """Returns the words of which a token is the one for everything unknown. Slow tokenizers do not tell."""
        offsets = encoded.get("offset_mapping", torch.zeros(1, 0, 2))[0].tolist()
        unknown = self.tokenizer.unk_token_id
        ends = [end for token, (_, end) in zip(encoded.input_ids[0], offsets, strict=False) if token == unknown]
        words = (match[0] for match in WORD.finditer(prompt) if any(match.start() < end <= match.end() for end in ends))
        return tuple(dict.fromkeys(words))
