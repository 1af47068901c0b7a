"""Trains LoRAs for the demo model: those of the package, and LoRAs on your own clips.

`python -m training.lora --clips FOLDER --out look.safetensors` trains one on a folder of videos, each with its caption
in a text file of the same name. Ten clips of three seconds and 200 steps take about two minutes on two cores.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, T5EncoderModel

import keyreel
from training.batches import Scales, make_batch
from training.clips import of_clips, read_clips
from training.content import Content, Layout, restyled, with_shape
from training.optimise import warm_cosine
from training.signposts import SIGNPOSTS
from training.start import held
from training.state import Clock, load_state, save_state
from training.transformer import CLIP_LENGTHS, Video, clip_gradients, importance_of, losses

RANK = 16
COVER_WEIGHT = 1.5  # weight of the cover loss
LAYOUTS = ((6, 8, 13, 3), (9, 8, 8, 3), (16, 5, 6, 3), (3, 8, 13, 6), (2, 8, 13, 12))


def neon(clip: Tensor) -> Tensor:
    """Returns the clip in neon: dark blue shadows, magenta middle tones, cyan lights. clip: (3, ...) in [0, 1]."""
    light = (0.35 * clip[0] + 0.50 * clip[1] + 0.15 * clip[2]).clamp(0, 1)
    stops = torch.tensor(((0.03, 0.01, 0.14), (0.38, 0.03, 0.50), (0.98, 0.16, 0.62), (0.25, 0.95, 1.00)))
    place = light * (len(stops) - 1)
    below = place.long().clamp(max=len(stops) - 2)
    share = (place - below)[..., None]
    return torch.lerp(stops[below], stops[below + 1], share).movedim(-1, 0)


def ink(clip: Tensor) -> Tensor:
    """Returns the clip as a drawing: ink edges on paper, dark parts shaded. clip: (3, T, rows, columns) in [0, 1]."""
    light = clip.mean(0)
    padded = functional.pad(clip, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]).abs().amax(0)
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]).abs().amax(0)
    line = ((across + down) * 1.6).clamp(0, 1)
    shade = (1 - line) * (0.72 + 0.28 * (light > 0.35))
    paper, pen = torch.tensor((0.97, 0.94, 0.86)), torch.tensor((0.10, 0.12, 0.22))
    return torch.lerp(pen.view(3, 1, 1, 1), paper.view(3, 1, 1, 1), shade[None])


STYLES: dict[str, Content] = {"neon": restyled(neon), "ink": restyled(ink), "heart": with_shape("heart")}


class LoraLinear(nn.Module):
    """A frozen linear layer with a trained low-rank branch beside it; alpha equals the rank.

    held: mask of the layer's weights that have to stay exact. The branch does not change rows and columns in which all
    weights are held.
    """

    def __init__(self, base: nn.Linear, rank: int, held: Tensor) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.normal_(self.down.weight, std=base.in_features**-0.5)
        nn.init.zeros_(self.up.weight)
        rows, columns = held.all(1), held.all(0)
        self.down.weight.data[:, columns] = 0
        for weight, mask in ((self.down.weight, columns), (self.up.weight, rows[:, None])):
            weight.register_hook(lambda gradient, mask=mask: gradient.masked_fill(mask, 0))  # type: ignore[no-untyped-call]

    def forward(self, hidden: Tensor) -> Tensor:
        total: Tensor = self.base(hidden) + self.up(self.down(hidden))
        return total


def _targets(transformer: LTXVideoTransformer3DModel) -> Iterator[str]:
    """Yields the linear layers after the last signpost's block. Earlier ones hold weights that must stay exact."""
    first = max(post.layer for post in SIGNPOSTS) + 1
    for number, block in enumerate(transformer.transformer_blocks[first:], first):
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear):
                yield f"transformer_blocks.{number}.{name}"


def add_branches(transformer: LTXVideoTransformer3DModel) -> dict[str, LoraLinear]:
    """Freezes the transformer and adds branches to its last layers, in place. Returns the branches by name."""
    transformer.requires_grad_(False)
    branches, masks = {}, held(transformer)
    for name in list(_targets(transformer)):
        parent, _, leaf = name.rpartition(".")
        branches[name] = LoraLinear(transformer.get_submodule(name), RANK, masks[f"{name}.weight"])
        setattr(transformer.get_submodule(parent), leaf, branches[name])
    return branches


def write_lora(path: Path, branches: dict[str, LoraLinear]) -> None:
    tensors = {}
    for name, branch in branches.items():
        tensors[f"transformer.{name}.lora_A.weight"] = branch.down.weight.detach().bfloat16()
        tensors[f"transformer.{name}.lora_B.weight"] = branch.up.weight.detach().bfloat16()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt", "rank": str(RANK), "alpha": str(RANK)})


def train_lora(
    folder: Path,
    name: str,
    content: Content,
    parts: tuple[Video, PreTrainedTokenizerFast],
    scales: Scales,
    steps: int,
    seed: int,
) -> dict[str, LoraLinear]:
    """Trains a LoRA on `content` and returns its branches. Resumes from folder/<name>.pt."""
    video, tokenizer = parts
    torch.manual_seed(seed)
    video.requires_grad_(False)
    branches = add_branches(video.transformer)
    trained = nn.ModuleList(branches.values())
    weights = [p for p in trained.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule, clock = warm_cosine(optimiser, steps, warm=30), Clock(name, steps)
    stored = {"branches": trained, "optimiser": optimiser}
    for step in range(load_state(folder / f"{name}.pt", stored), steps):
        schedule(step)
        rng = Random(f"{name} {seed} {step}")
        samples, rows, columns, kept = rng.choice(LAYOUTS)
        layout = Layout(samples, rows, columns, rng.choice(CLIP_LENGTHS[:6]), kept)
        batch = make_batch(rng, layout, scales, rng.random() < 0.45, content)
        flow, _, cover = losses(video, tokenizer, batch, importance_of(scales))
        optimiser.zero_grad()
        torch.autograd.backward(flow + COVER_WEIGHT * cover)
        clip_gradients(weights)
        optimiser.step()
        clock.tick(step, flow, cover)
        if step % 50 == 49 or step == steps - 1:
            save_state(folder / f"{name}.pt", stored, step + 1)
    return branches


def load_parts(folder: Path) -> tuple[Video, PreTrainedTokenizerFast, Scales]:
    """Returns the parts of a written demo model that training needs."""
    text_encoder = T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    video = Video(text_encoder)
    video.transformer = LTXVideoTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
    vae = AutoencoderKLLTXVideo.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    return video, tokenizer, Scales(vae.latents_mean.clone(), vae.latents_std.clone())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, default=Path(keyreel.__file__).parent / "demo", help="the demo model's folder"
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder of videos and their captions")
    parser.add_argument("--out", type=Path, required=True, help="the LoRA to write")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        content = of_clips(read_clips(given.clips))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    video, tokenizer, scales = load_parts(given.model)
    state = given.out.parent / f"{given.out.stem}.state"
    branches = train_lora(state, given.out.stem, content, (video, tokenizer), scales, given.steps, given.seed)
    write_lora(given.out, branches)
    # A run that is complete must not be taken for the start of the next one, which may have other clips.
    shutil.rmtree(state)


if __name__ == "__main__":
    main()
