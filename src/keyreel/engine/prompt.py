"""Prompts to embeddings."""

from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase, T5EncoderModel

MAX_TOKENS = 256
CACHED_PROMPTS = 64


@dataclass(frozen=True, slots=True)
class Text:
    """embedding: (1, L, E) on the model's device. `is_cut`: the prompt was longer than the model reads."""

    embedding: torch.Tensor
    is_cut: bool


@dataclass(frozen=True, slots=True)
class PromptEncoder:
    """T5 and its tokenizer, with the embeddings of recent prompts: most requests share their negative prompt."""

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
        # No padding, so no mask: padded positions get no attention anyhow, neither here nor in the transformer.
        tokens = self.tokenizer(prompt.strip(), return_tensors="pt", verbose=False).input_ids
        is_cut = tokens.shape[1] > MAX_TOKENS
        if is_cut:
            tokens = torch.cat((tokens[:, : MAX_TOKENS - 1], tokens[:, -1:]), dim=1)
        embedding = self.encoder(tokens.to(self.device)).last_hidden_state
        return Text(embedding, is_cut)
