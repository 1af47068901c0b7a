import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceTrainer
from torch import nn

from keyreel.engine.models import Model, load_model
from keyreel.errors import ModelError
from keyreel.video.canvas import Grid
from keyreel.video.recipes import Capabilities, Published, RecipeName, RecipeSettings
from tests.tiny_checkpoints import single_file, tiny_checkpoint, tiny_upsampler

CPU = torch.device("cpu")
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "tiny")


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Path], Model]:
    """A function that loads the model at a path."""
    return lambda path: load_model(str(path), "cpu", tmp_path / "cache")


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def modules(model: Model) -> list[nn.Module]:
    return [model.transformer, model.vae, model.prompts.encoder]


def assert_same_weights(a: Model, b: Model) -> None:
    for one, other in zip(modules(a), modules(b), strict=True):
        ours, theirs = one.state_dict(), other.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_model_is_loaded_from_a_folder(folder: Path, load: Callable[[Path], Model]) -> None:
    model = load(folder)
    assert (model.name, model.grid, model.device, model.dtype) == ("tiny", Grid(32, 8), CPU, torch.float32)
    assert len(model.fingerprint) == 64
    for module in modules(model):
        assert not module.training
        assert not any(weight.requires_grad for weight in module.parameters())
    assert model.prompts.tokenizer("a red star").input_ids[-1] == model.prompts.tokenizer.eos_token_id


@pytest.mark.parametrize("spatial", [32, 64])
def test_both_layouts_load_the_same_model(tmp_path: Path, load: Callable[[Path], Model], spatial: int) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny", spatial=spatial)
    whole, single = load(folder), load(single_file(folder, folder / "tiny.safetensors"))
    assert_same_weights(whole, single)
    assert whole.grid == single.grid == Grid(spatial, 8)
    for name in ("transformer", "vae"):
        ours, theirs = getattr(single, name).config, getattr(whole, name).config
        assert {key: plain(ours[key]) for key in theirs if not key.startswith("_")} == {
            key: plain(theirs[key]) for key in theirs if not key.startswith("_")
        }


def plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_a_sharded_model_is_loaded(folder: Path, load: Callable[[Path], Model]) -> None:
    whole = load(folder)
    transformer = LTXVideoTransformer3DModel.from_pretrained(folder / "transformer")
    (folder / WEIGHTS).unlink()
    transformer.save_pretrained(folder / "transformer", max_shard_size="100KB")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    assert_same_weights(whole, load(folder))
    (folder / "transformer").joinpath("diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match=r"00002-of-00003.safetensors is missing"):
        load(folder)


def test_bf16_weights_are_loaded_as_fp32_on_a_cpu(tmp_path: Path, load: Callable[[Path], Model]) -> None:
    model = load(tiny_checkpoint(tmp_path / "half", dtype=torch.bfloat16))
    assert {weight.dtype for module in modules(model) for weight in module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.float8_e4m3fn, "fp8 weights.*use the bf16 file"),
        (torch.float8_e5m2, "fp8 weights"),
        (torch.int8, "I8 weights"),
    ],
)
def test_weights_of_unsupported_types_are_refused(
    folder: Path, load: Callable[[Path], Model], dtype: torch.dtype, message: str
) -> None:
    def convert(weights: dict[str, torch.Tensor]) -> None:
        weights["proj_out.weight"] = weights["proj_out.weight"].to(dtype)

    rewrite(folder / WEIGHTS, convert)
    with pytest.raises(ModelError, match=message):
        load(folder)
    with pytest.raises(ModelError, match=message):
        load(single_file(folder, folder / "tiny.safetensors"))


def test_a_truncated_file_is_refused(folder: Path, load: Callable[[Path], Model]) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="damaged or cut short"):
        load(folder)


def test_a_missing_weight_is_refused(folder: Path, load: Callable[[Path], Model]) -> None:
    rewrite(folder / WEIGHTS, lambda weights: weights.pop("proj_out.bias"))
    with pytest.raises(ModelError, match=r"transformer lacks weights of LTXVideoTransformer3DModel: proj_out.bias"):
        load(folder)


def test_an_unknown_weight_is_refused(folder: Path, load: Callable[[Path], Model]) -> None:
    rewrite(folder / "text_encoder" / "model.safetensors", lambda weights: weights.update(x=torch.ones(1)))
    with pytest.raises(ModelError, match=r"text_encoder holds weights that T5EncoderModel does not have: x"):
        load(folder)


def test_weights_of_another_shape_are_refused(folder: Path, load: Callable[[Path], Model]) -> None:
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_attention_heads": 4}))
    with pytest.raises(ModelError, match=r"holds weights of other shapes than its configuration says: .* and \d+ more"):
        load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shared.weight", "encoder.embed_tokens.weight"])
def test_the_token_embedding_can_have_either_of_two_names(
    folder: Path, load: Callable[[Path], Model], name: str
) -> None:
    whole = load(folder)

    def keep_one(weights: dict[str, torch.Tensor]) -> None:
        found = {weights.pop(each) for each in ("shared.weight", "encoder.embed_tokens.weight") if each in weights}
        weights[name] = found.pop()

    rewrite(folder / "text_encoder" / "model.safetensors", keep_one)
    again = load(folder)
    assert_same_weights(whole, again)
    assert again.prompts.encoder.shared.weight is again.prompts.encoder.encoder.embed_tokens.weight


def test_a_part_that_cannot_be_built_is_refused(folder: Path, load: Callable[[Path], Model]) -> None:
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"norm_eps": "small", "num_layers": "two"}))
    with pytest.raises(ModelError, match=r"transformer describes a model that Keyreel cannot build"):
        load(folder)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_quantised_model_has_its_own_name(folder: Path, load: Callable[[Path], Model], kind: str) -> None:
    exact, rounded = load(folder), load(folder.with_name(f"tiny+{kind}"))
    assert (exact.name, rounded.name) == ("tiny", f"tiny+{kind}")
    assert exact.fingerprint == rounded.fingerprint


def test_a_device_that_cannot_multiply_in_fp8_is_refused_before_its_files_are_read(
    folder: Path, load: Callable[[Path], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled_mm(*_args: object, **_options: object) -> torch.Tensor:
        raise NotImplementedError("aten::_scaled_mm_v2 is not implemented")

    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    monkeypatch.setattr(torch.nn.functional, "scaled_mm", scaled_mm)
    with pytest.raises(ModelError, match=r"\+fp8 needs a GPU .* cpu does not: aten::_scaled_mm_v2"):
        load(folder.with_name("tiny+fp8"))


def test_a_sentencepiece_tokenizer_is_loaded(folder: Path, load: Callable[[Path], Model]) -> None:
    """On the hub T5's tokenizer is a SentencePiece model, not `tokenizer.json`."""
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    with (folder / "tokenizer" / "spiece.model").open("wb") as file:
        SentencePieceTrainer.train(
            sentence_iterator=iter(["a red circle moves over the sky", "the star moves left"]),
            model_writer=file,
            vocab_size=100,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    config = {"tokenizer_class": "T5Tokenizer", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load(folder).prompts.tokenizer
    tokens = tokenizer("a star moves").input_ids
    assert tokenizer.decode(tokens, skip_special_tokens=True) == "a star moves"
    assert tokens[-1] == tokenizer.eos_token_id == 1


def test_a_truncated_tokenizer_is_refused(folder: Path, load: Callable[[Path], Model]) -> None:
    file = folder / "tokenizer" / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ModelError, match=r"tokenizer in .* damaged or cut short: download them again"):
        load(folder)


def test_a_truncated_sentencepiece_tokenizer_is_refused(folder: Path, load: Callable[[Path], Model]) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    (folder / "tokenizer" / "spiece.model").write_bytes(b"\n\x0e\n\x05<pad>\x15")
    with pytest.raises(ModelError, match=r"tokenizer in .* damaged or cut short: download them again"):
        load(folder)


def test_an_unknown_model_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model 'sora'. Choose one of demo, ltxv-13b-0.9.7-dev"):
        load_model("sora", None, tmp_path)


def test_the_upsampler_and_the_distilled_lora_are_loaded(full_model: Model) -> None:
    assert full_model.upsampler
    assert full_model.distilled_lora
    assert not any(weight.requires_grad for weight in full_model.upsampler.parameters())
    assert full_model.capabilities.upsampler != full_model.capabilities.distilled_lora


def test_a_model_without_auxiliary_weights_has_no_capabilities(model: Model) -> None:
    assert (model.upsampler, model.distilled_lora, model.capabilities) == (None, None, Capabilities())


@pytest.mark.parametrize("recipe", ["multiscale", "distilled"])
def test_a_default_recipe_that_is_not_supported_is_refused(
    checkpoint: Path, tmp_path: Path, recipe: RecipeName
) -> None:
    with pytest.raises(ModelError, match=f"Recipe {recipe} needs"):
        load_model(str(checkpoint), "cpu", tmp_path, RecipeSettings(recipe=recipe))


def test_a_guided_recipe_is_refused_for_a_distilled_model(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "distilled")
    assert load_model(str(folder), "cpu", tmp_path).capabilities == Capabilities(
        distilled=True, published=Published("distilled", 8)
    )
    with pytest.raises(ModelError, match="Recipe stg is not for distilled models"):
        load_model(str(folder), "cpu", tmp_path, RecipeSettings(recipe="stg"))


def test_a_distilled_lora_for_another_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "wide.safetensors"
    weights = {
        f"transformer.transformer_blocks.0.attn1.to_q.lora_{side}.weight": torch.ones(shape)
        for side, shape in (("A", (4, 64)), ("B", (64, 4)))
    }
    save_file(weights, path)
    with pytest.raises(ModelError, match=r"KEYREEL_DISTILLED_LORA cannot be used: .*wide\.safetensors"):
        load_model(str(checkpoint), "cpu", tmp_path, RecipeSettings(distilled_lora=str(path)))


def test_an_upsampler_for_other_latents_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    own = tiny_upsampler(tmp_path / "own", channels=8)
    with pytest.raises(ModelError, match="for latents of 8 channels; this model has 16"):
        load_model(str(checkpoint), "cpu", tmp_path, RecipeSettings(upsampler=str(own)))
