from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from keyreel.canvas import Size
from keyreel.engine.models import Model
from keyreel.engine.pipeline import draw, encode_conditions, run
from keyreel.errors import RequestError
from keyreel.events import Frames, Notice, Stage, Step
from keyreel.job import AdapterFile, Condition, Job, Pixels, Sampling
from keyreel.recipes import RecipeName, TwoPasses, recipe_of
from tests.checkpoints import tiny_lora
from tests.engine.stock import outcome

JOB = Job(
    prompt="a red circle moves right",
    negative_prompt="dark",
    size=Size(96, 80),
    frames=12,
    steps=3,
    frame_rate=25,
    seed=1,
)


def video(model: Model, job: Job) -> Pixels:
    return np.concatenate([event.pixels for event in run(model, job) if isinstance(event, Frames)])


def picture(seed: int, frames: int = 1) -> Pixels:
    shape = (frames, JOB.size.height, JOB.size.width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def by(recipe: RecipeName, sampling: Sampling | None = None, steps: int = JOB.steps) -> Job:
    return replace(JOB, steps=steps, sampling=replace(sampling or Sampling(), recipe=recipe))


def forwards(model: Model, job: Job) -> dict[str, list[int]]:
    """Predictions of the transformer in each step of each pass."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    counts: dict[str, list[int]] = {}
    stage = ""
    with model.transformer.proj_out.register_forward_hook(count):
        for event in run(model, job):
            match event:
                case Stage("decode"):
                    break
                case Stage(name):
                    stage, calls = name, 0
                case Step() if stage in ("denoise", "refine"):
                    counts.setdefault(stage, []).append(calls)
                    calls = 0
    return counts


@pytest.fixture(scope="module")
def plain(model: Model) -> Pixels:
    return video(model, JOB)


@pytest.fixture
def adapter(tmp_path: Path) -> AdapterFile:
    path = tiny_lora(tmp_path / "style.safetensors")
    return AdapterFile(path, path.name, "0" * 64, 1.0, ("loras", 0, "path"))


def test_a_video_has_the_size_and_the_frames_that_were_asked_for(plain: Pixels) -> None:
    assert plain.shape == (12, 80, 96, 3)
    assert plain.std() > 5


def test_the_same_job_gives_the_same_video(model: Model, plain: Pixels) -> None:
    assert np.array_equal(video(model, JOB), plain)


def test_a_run_with_a_lora_leaves_no_trace(model: Model, plain: Pixels, adapter: AdapterFile) -> None:
    styled = video(model, replace(JOB, adapters=(adapter,)))
    assert not np.array_equal(styled, plain)
    assert np.array_equal(video(model, JOB), plain)


def test_a_run_that_is_stopped_leaves_no_trace(model: Model, plain: Pixels, adapter: AdapterFile) -> None:
    events = run(model, replace(JOB, adapters=(adapter,)))
    for event in events:
        if event == Step(1):
            break
    events.close()
    assert np.array_equal(video(model, JOB), plain)


@pytest.mark.parametrize(
    "changed",
    [
        replace(JOB, seed=2),
        replace(JOB, prompt="a green square"),
        replace(JOB, negative_prompt="light"),
        replace(JOB, frame_rate=10),
        replace(JOB, steps=4),
        replace(JOB, conditions=(Condition(picture(1), 0, 1.0),)),
        replace(JOB, conditions=(Condition(picture(1), 7, 1.0),)),
        replace(JOB, sampling=Sampling(guidance_scale=1.0)),
        replace(JOB, sampling=Sampling(decode_noise_scale=0.5)),
    ],
    ids=["seed", "prompt", "negative", "rate", "steps", "image@0", "image@7", "guidance", "decode noise"],
)
def test_every_field_matters(model: Model, plain: Pixels, changed: Job) -> None:
    assert not np.array_equal(video(model, changed), plain)


def test_reversed_is_the_same_video_backwards(model: Model, plain: Pixels) -> None:
    assert np.array_equal(video(model, replace(JOB, reverse=True)), plain[::-1])


def test_a_longer_video_is_cut_from_what_is_drawn(model: Model, plain: Pixels) -> None:
    """12 and 17 frames are both drawn as 17."""
    assert np.array_equal(video(model, replace(JOB, frames=17))[:12], plain)


def test_events_tell_the_story(model: Model) -> None:
    job = replace(JOB, conditions=(Condition(picture(1), 0, 1.0), Condition(picture(2, 9), 8, 0.5)), frames=17)
    events = [event for event in run(model, job) if not isinstance(event, Frames)]
    assert events == [
        Stage("conditions", 2),
        Step(1),
        Step(2),
        Stage("denoise", 3),
        Step(1),
        Step(2),
        Step(3),
        Stage("decode", 17),
        Step(8),
        Step(16),
        Step(17),
    ]


def test_each_recipe_draws_its_own_video(full_model: Model, plain: Pixels) -> None:
    videos = [plain, *(video(full_model, by(recipe)) for recipe in ("stg", "multiscale", "distilled"))]
    for one, other in combinations(videos, 2):
        assert one.shape == other.shape
        assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("recipe", "changed"),
    [
        ("stg", Sampling(stg_mode="attention_skip")),
        ("stg", Sampling(stg_mode="transformer_block")),
        ("single", Sampling(stochastic_sampling=True)),
        ("single", Sampling(tone_map=0.6)),
        ("multiscale", Sampling(adain=0.5)),
        ("multiscale", Sampling(stochastic_sampling=True)),
    ],
    ids=str,
)
def test_every_setting_of_a_recipe_matters(full_model: Model, recipe: RecipeName, changed: Sampling) -> None:
    one = video(full_model, by(recipe, changed))
    assert not np.array_equal(one, video(full_model, by(recipe)))
    assert np.array_equal(one, video(full_model, by(recipe, changed)))


def test_settings_of_other_recipes_do_not(model: Model, plain: Pixels) -> None:
    sampling = Sampling(stg_mode="attention_skip", adain=0.5)
    assert np.array_equal(video(model, replace(JOB, sampling=sampling)), plain)


def test_only_the_forwards_that_a_step_needs(full_model: Model) -> None:
    """Lightricks' multiscale recipe of 30 steps: 62 forwards at the small size, 26 at the large one."""
    assert forwards(full_model, by("single", steps=4)) == {"denoise": [2] * 4}
    unguided = Sampling(guidance_scale=1.0)
    assert forwards(full_model, by("single", unguided, steps=4)) == {"denoise": [1] * 4}
    assert forwards(full_model, by("stg", steps=4)) == {"denoise": [3] * 4}
    assert forwards(full_model, by("distilled", steps=30)) == {"denoise": [1] * 8}
    counts = forwards(full_model, by("multiscale", steps=30))
    assert counts == {"denoise": [1] * 3 + [3] * 11 + [2] * 13, "refine": [2] * 13}
    assert {stage: sum(steps) for stage, steps in counts.items()} == {"denoise": 62, "refine": 26}
    few = by("distilled-multiscale", steps=30)
    assert forwards(full_model, few) == {"denoise": [1] * 7, "refine": [1] * 3}
    asked = replace(few, passes=TwoPasses(first=5, skip_final=3, second=6, skip_initial=2))
    assert forwards(full_model, asked) == {"denoise": [1] * 2, "refine": [1] * 4}


def test_the_negative_prompt_is_read_only_where_it_guides(full_model: Model) -> None:
    long = replace(by("distilled"), negative_prompt="red " * 300)
    assert not [event for event in run(full_model, long) if isinstance(event, Notice)]


def test_the_distilled_lora_leaves_no_trace(full_model: Model, plain: Pixels) -> None:
    with_lora = video(full_model, by("distilled"))
    without = video(replace(full_model, distilled_lora=None), by("distilled"))
    assert not np.array_equal(with_lora, without)
    assert np.array_equal(video(full_model, JOB), plain)


def test_two_passes_tell_their_story(full_model: Model) -> None:
    job = replace(by("multiscale", steps=10), conditions=(Condition(picture(1), 0, 1.0), Condition(picture(2), 7, 1.0)))
    events = [event for event in run(full_model, job) if not isinstance(event, Frames)]
    assert events[:5] == [Stage("conditions", 4), *map(Step, range(1, 5))]
    assert events[5:15] == [Stage("denoise", 9), *map(Step, range(1, 10))]
    assert events[15:21] == [Stage("upsample"), Stage("refine", 4), *map(Step, range(1, 5))]
    assert events[21:] == [Stage("decode", 12), Step(8), Step(12)]


def test_conditions_are_pinned_at_both_sizes(full_model: Model) -> None:
    """What is pinned hard at frame 0 comes out as it went in, in both passes, if nothing shakes it."""
    sampling = Sampling(condition_noise_scale=0.0)
    pinned = replace(by("multiscale", sampling), conditions=(Condition(picture(1), 0, 1.0),))
    with torch.inference_mode():
        small, large = outcome(encode_conditions(full_model, pinned))
        texts = [full_model.prompts.encode(prompt) for prompt in (pinned.prompt, pinned.negative_prompt)]
        recipe = recipe_of("multiscale", 3, 3.0, distilled=False)
        z = outcome(draw(full_model, pinned, recipe, texts, [small, large]))
    assert [pin.latents.shape[2:] for pin in (small[0], large[0])] == [(1, 2, 2), (1, 4, 4)]
    assert torch.equal(z[:, :, :1], large[0].latents)


def test_a_recipe_that_the_model_cannot_do(model: Model) -> None:
    for recipe in ("multiscale", "distilled"):
        with pytest.raises(RequestError, match=f"Recipe {recipe} needs") as refused:
            next(run(model, by(recipe)))
        assert refused.value.problems[0].loc == ("recipe",)


def test_a_prompt_that_is_cut_is_said(model: Model) -> None:
    events = list(run(model, replace(JOB, prompt="red " * 300, steps=1)))
    assert [event for event in events if isinstance(event, Notice)] == [
        Notice("The prompt is longer than the model reads; what follows its first 256 tokens is ignored.")
    ]
