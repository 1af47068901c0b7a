"""Writes a diffusers folder of the trained parts."""

import json
import shutil
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
    """Stores bfloat16. Leaves files it does not write (adapters, the card) alone."""
    folder.mkdir(parents=True, exist_ok=True)
    vae.to(torch.bfloat16).save_pretrained(folder / "vae")
    video.transformer.to(torch.bfloat16).save_pretrained(folder / "transformer")
    video.text_encoder.to(torch.bfloat16).save_pretrained(folder / "text_encoder")
    save_tokenizer(tokenizer, folder / "tokenizer")
    FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")


def replace_folder(fresh: Path, folder: Path) -> None:
    """Puts a finished folder in the place of the old one."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
