from pathlib import Path

import torch
from safetensors.torch import load_file
from training.autoencoder import LATENTS
from training.lora import LoraLinear, add_branches, ink, neon, write_lora
from training.pins import HANDERS
from training.transformer import _new_transformer


def test_styles_keep_the_range_of_colours() -> None:
    clip = torch.rand(3, 4, 5, 6)
    for restyle in (neon, ink):
        styled = restyle(clip)
        assert styled.shape == clip.shape
        assert 0 <= styled.min() <= styled.max() <= 1


def test_new_branches_change_nothing_and_are_stored_under_their_modules_name(tmp_path: Path) -> None:
    base = torch.nn.Linear(6, 4)
    branch = LoraLinear(base, 2, torch.zeros(4, 6, dtype=torch.bool))
    hidden = torch.rand(3, 6)
    torch.testing.assert_close(branch(hidden), base(hidden))
    write_lora(tmp_path / "look.safetensors", {"transformer_blocks.0.attn1.to_q": branch})
    tensors = load_file(tmp_path / "look.safetensors")
    assert tensors["transformer.transformer_blocks.0.attn1.to_q.lora_A.weight"].shape == (2, 6)
    assert tensors["transformer.transformer_blocks.0.attn1.to_q.lora_B.weight"].shape == (4, 2)


def test_branches_are_added_to_the_last_two_blocks_only() -> None:
    branches = add_branches(_new_transformer())
    assert {name.split(".")[1] for name in branches} == {"4", "5"}
    assert {name.split(".")[2] for name in branches} == {"attn1", "attn2", "ff"}


def test_training_branches_does_not_change_held_weights() -> None:
    """In the last MLP: the weights that write to the noisy latents, and the units that hand over a pinned frame."""
    branches = add_branches(_new_transformer())
    optimiser = torch.optim.AdamW(
        [p for branch in branches.values() for p in branch.parameters() if p.requires_grad], lr=0.1, weight_decay=0.0
    )
    rise, fall = (branches[f"transformer_blocks.5.ff.net.{layer}"] for layer in ("0.proj", "2"))
    for _ in range(2):
        optimiser.zero_grad()
        hidden = rise(torch.rand(7, rise.base.in_features))
        (fall(hidden) - 1).square().mean().backward()
        optimiser.step()
    for branch, rows, columns in ((rise, HANDERS, ()), (fall, range(LATENTS), HANDERS)):
        change = branch.up.weight @ branch.down.weight
        assert change[list(rows)].abs().max() == 0
        assert not list(columns) or change[:, list(columns)].abs().max() == 0
        assert change.abs().max() > 0.01
