"""Encodes prompts to embeddings."""

from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from keyreel.checkpoints.memory import PROMPT_TOKENS

CACHED_PROMPTS = 64


@dataclass(frozen=True, slots=True)
class Text:
    """An encoded prompt. embedding: (1, L, E) on the model's device. is_cut: whether the prompt was too long."""

    embedding: torch.Tensor
    is_cut: bool

    def to(self, device: torch.device) -> "Text":
        return Text(self.embedding.to(device), self.is_cut)


@dataclass(frozen=True, slots=True)
class PromptEncoder:
    """T5 and its tokenizer. Caches recent prompts, because most requests share their negative prompt."""

    tokenizer: PreTrainedTokenizerBase
    encoder: T5EncoderModel
    device: torch.device
    recent: OrderedDict[str, Text] = field(default_factory=OrderedDict)

    def encode(self, prompt: str) -> Text:
        if prompt not in self.recent:
            self.recent[prompt] = self._encode(prompt)
        self.recent.move_to_end(prompt)
        while len(self.recent) > CACHED_PROMPTS:
            self.recent.popitem(last=False)
        return self.recent[prompt]

    def _encode(self, prompt: str) -> Text:
        # Unpadded, so no mask is needed: neither T5 nor the transformer would attend to padding.
        tokens = self.tokenizer(prompt.strip(), return_tensors="pt", verbose=False).input_ids
        is_cut = tokens.shape[1] > PROMPT_TOKENS
        if is_cut:
            tokens = torch.cat((tokens[:, : PROMPT_TOKENS - 1], tokens[:, -1:]), dim=1)
        embedding = self.encoder(tokens.to(self.device)).last_hidden_state
        return Text(embedding, is_cut)
