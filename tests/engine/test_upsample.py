from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import LTXLatentUpsamplePipeline
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from safetensors.torch import load_file, save_file

from keyreel.engine.models import Model
from keyreel.engine.upsample import load_upsampler, upsample
from keyreel.errors import ModelError
from tests.tiny_checkpoints import single_file_upsampler, tiny_upsampler

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_upsampler(tmp_path / "latent_upsampler")


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def test_both_layouts_load_the_same_weights(folder: Path, model: Model, tmp_path: Path) -> None:
    single = single_file_upsampler(folder, tmp_path / "ltxv-spatial-upscaler-0.9.7.safetensors")
    ours, theirs = load_upsampler(folder, model.vae, torch.float32), load_upsampler(single, model.vae, torch.float32)
    stock = LTXLatentUpsamplerModel.from_pretrained(folder)
    for loaded in (ours, theirs):
        assert not loaded.training
        assert loaded.state_dict().keys() == stock.state_dict().keys()
        assert all(torch.equal(weight, stock.state_dict()[key]) for key, weight in loaded.state_dict().items())


def test_the_published_upsampler_has_the_published_size() -> None:
    """The file on the hub has 505 MB, in fp32."""
    with torch.device("meta"):
        published = LTXLatentUpsamplerModel(in_channels=128, mid_channels=512, num_blocks_per_stage=4, dims=3)
    weights = sum(weight.numel() for weight in published.parameters())
    assert 4 * weights == pytest.approx(505e6, rel=1e-3)


@pytest.mark.parametrize("adain", [0.0, 0.5, 1.0])
@torch.inference_mode()
def test_latents_equal_diffusers_latents(folder: Path, model: Model, adain: float) -> None:
    """diffusers matches colours before it normalises the latents, which is equivalent."""
    upsampler = load_upsampler(folder, model.vae, torch.float32)
    z = torch.randn(1, 16, 3, 2, 3, generator=torch.Generator().manual_seed(1))
    pipeline = LTXLatentUpsamplePipeline(model.vae, LTXLatentUpsamplerModel.from_pretrained(folder))
    theirs = pipeline(latents=z, height=128, width=192, adain_factor=adain, output_type="latent").frames
    ours = upsample(upsampler, z, model.vae, adain)
    assert ours.shape == (1, 16, 3, 4, 6)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("final_conv.bias"), "lacks weights of .*final_conv.bias"),
        (lambda weights: weights.update(extra=torch.ones(1)), "holds weights that .*extra"),
        (lambda weights: weights.update({"final_conv.bias": torch.ones(3)}), "of other shapes .*final_conv.bias"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_weights_must_match_the_configuration(
    folder: Path, model: Model, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    rewrite(folder / WEIGHTS, change)
    with pytest.raises(ModelError, match=message):
        load_upsampler(folder, model.vae, torch.float32)


def test_files_that_are_not_upsamplers_are_refused(folder: Path, model: Model, tmp_path: Path) -> None:
    save_file(load_file(folder / WEIGHTS), bare := tmp_path / "bare.safetensors")
    (torn := tmp_path / "torn.safetensors").write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    for path in (bare, torn, tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(ModelError, match="not a latent upsampler of LTX-Video"):
            load_upsampler(path, model.vae, torch.float32)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"spatial_upsample": False, "temporal_upsample": True}, "upsamples time"), ({"in_channels": 8}, "8 channels")],
    ids=["temporal", "channels"],
)
def test_upsamplers_of_other_kinds_are_refused(
    model: Model, tmp_path: Path, option: dict[str, bool | int], message: str
) -> None:
    options = {"in_channels": 16, "mid_channels": 32, "num_blocks_per_stage": 1} | option
    LTXLatentUpsamplerModel(**options).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_upsampler(tmp_path, model.vae, torch.float32)
