"""Writes the trained parts as a folder that diffusers can load."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler
from transformers import PreTrainedTokenizerFast

from training.text import save_tokenizer
from training.transformer import Video

INDEX = {
    "_class_name": "LTXConditionPipeline",
    "_diffusers_version": "0.42.1",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLLTXVideo"],
}


def write_model(folder: Path, vae: AutoencoderKLLTXVideo, video: Video, tokenizer: PreTrainedTokenizerFast) -> None:
    """Writes the model in bfloat16. Other files in the folder (LoRAs, the card) stay."""
    folder.mkdir(parents=True, exist_ok=True)
    vae.to(torch.bfloat16).save_pretrained(folder / "vae")
    video.transformer.to(torch.bfloat16).save_pretrained(folder / "transformer")
    video.text_encoder.to(torch.bfloat16).save_pretrained(folder / "text_encoder")
    save_tokenizer(tokenizer, folder / "tokenizer")
    FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
