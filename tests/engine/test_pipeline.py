import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from keyreel.checkpoints.hub import content_sha256
from keyreel.engine import pipeline
from keyreel.engine.models import Model, load_model
from keyreel.engine.pipeline import draw, encode_conditions, run
from keyreel.errors import RequestError
from keyreel.video.canvas import Size
from keyreel.video.events import Checkpoint, Event, Frames, Notice, Stage, Step
from keyreel.video.job import AdapterFile, Condition, Job, Pixels, Sampling
from keyreel.video.recipes import RecipeName, TwoPasses, recipe_of
from tests.engine.stock import result_of
from tests.tiny_checkpoints import tiny_lora

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
    return frames_of(run(model, job))


def frames_of(events: Iterable[Event]) -> Pixels:
    return np.concatenate([event.pixels for event in events if isinstance(event, Frames)])


def checkpoints_of(events: Iterable[Event]) -> list[Checkpoint]:
    return [event for event in events if isinstance(event, Checkpoint)]


def picture(seed: int, frames: int = 1) -> Pixels:
    shape = (frames, JOB.size.height, JOB.size.width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def job_with(recipe: RecipeName, sampling: Sampling | None = None, steps: int = JOB.steps) -> Job:
    return replace(JOB, steps=steps, sampling=replace(sampling or Sampling(), recipe=recipe))


def predictions(model: Model, job: Job) -> dict[str, list[int]]:
    """Returns how many predictions the transformer makes in each step of each pass."""
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
    return AdapterFile(path, path.name, content_sha256(path), 1.0, ("loras", 0, "path"))


def test_a_video_has_the_requested_size_and_number_of_frames(plain: Pixels) -> None:
    assert plain.shape == (12, 80, 96, 3)
    assert plain.std() > 5


def test_the_same_job_gives_the_same_video(model: Model, plain: Pixels) -> None:
    assert np.array_equal(video(model, JOB), plain)


def test_a_lora_does_not_affect_later_videos(model: Model, plain: Pixels, adapter: AdapterFile) -> None:
    styled = video(model, replace(JOB, adapters=(adapter,)))
    assert not np.array_equal(styled, plain)
    assert np.array_equal(video(model, JOB), plain)


def test_a_stopped_run_does_not_affect_later_videos(model: Model, plain: Pixels, adapter: AdapterFile) -> None:
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
def test_every_field_of_a_job_changes_the_video(model: Model, plain: Pixels, changed: Job) -> None:
    assert not np.array_equal(video(model, changed), plain)


def test_a_reversed_video_is_the_same_video_backwards(model: Model, plain: Pixels) -> None:
    assert np.array_equal(video(model, replace(JOB, reverse=True)), plain[::-1])


def test_frames_become_bytes_one_by_one_on_a_cpu(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp32 a frame takes four times the memory."""
    waiting: list[weakref.ref[torch.Tensor]] = []

    def decode(*_arguments: object) -> Iterator[torch.Tensor]:
        for _ in range(JOB.frames):
            assert not any(frame() is not None for frame in waiting)
            drawn = [torch.zeros(1, 3, 96, 96)]
            waiting.append(weakref.ref(drawn[0]))
            yield drawn.pop()

    monkeypatch.setattr(pipeline, "decode", decode)
    assert len(video(model, JOB)) == len(waiting) == JOB.frames


def test_a_shorter_video_is_cut_from_the_frames_that_are_drawn(model: Model, plain: Pixels) -> None:
    """For both 12 and 17 frames, 17 are drawn."""
    assert np.array_equal(video(model, replace(JOB, frames=17))[:12], plain)


def test_events_report_each_stage_and_step(model: Model) -> None:
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


def test_each_recipe_makes_a_different_video(full_model: Model, plain: Pixels) -> None:
    videos = [plain, *(video(full_model, job_with(recipe)) for recipe in ("stg", "multiscale", "distilled"))]
    for one, other in combinations(videos, 2):
        assert one.shape == other.shape
        assert not np.array_equal(one, other)


@pytest.mark.slow
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
def test_every_setting_of_a_recipe_changes_the_video(full_model: Model, recipe: RecipeName, changed: Sampling) -> None:
    one = video(full_model, job_with(recipe, changed))
    assert not np.array_equal(one, video(full_model, job_with(recipe)))
    assert np.array_equal(one, video(full_model, job_with(recipe, changed)))


def test_settings_of_other_recipes_do_not_change_the_video(model: Model, plain: Pixels) -> None:
    sampling = Sampling(stg_mode="attention_skip", adain=0.5)
    assert np.array_equal(video(model, replace(JOB, sampling=sampling)), plain)


@pytest.mark.slow
def test_each_step_makes_only_the_predictions_that_it_needs(full_model: Model) -> None:
    """Lightricks' multiscale recipe of 30 steps makes 62 predictions at the small size and 26 at the large one."""
    assert predictions(full_model, job_with("single", steps=4)) == {"denoise": [2] * 4}
    unguided = Sampling(guidance_scale=1.0)
    assert predictions(full_model, job_with("single", unguided, steps=4)) == {"denoise": [1] * 4}
    assert predictions(full_model, job_with("stg", steps=4)) == {"denoise": [3] * 4}
    assert predictions(full_model, job_with("distilled", steps=30)) == {"denoise": [1] * 8}
    counts = predictions(full_model, job_with("multiscale", steps=30))
    assert counts == {"denoise": [1] * 3 + [3] * 11 + [2] * 13, "refine": [2] * 13}
    assert {stage: sum(steps) for stage, steps in counts.items()} == {"denoise": 62, "refine": 26}
    distilled = job_with("distilled-multiscale", steps=30)
    assert predictions(full_model, distilled) == {"denoise": [1] * 7, "refine": [1] * 3}
    custom = replace(distilled, passes=TwoPasses(first=5, skip_final=3, second=6, skip_initial=2))
    assert predictions(full_model, custom) == {"denoise": [1] * 2, "refine": [1] * 4}


def test_passes_longer_than_a_distilled_model_allows_are_cut_and_reported(full_model: Model) -> None:
    job = replace(job_with("distilled-multiscale"), passes=TwoPasses(first=12, skip_final=2, second=9, skip_initial=5))
    assert predictions(full_model, job) == {"denoise": [1] * 7, "refine": [1] * 4}
    notices = [event.message for event in run(full_model, job) if isinstance(event, Notice)]
    assert notices == ["The model is distilled to 8 noise levels, so no pass takes more than that many steps."]


def test_the_negative_prompt_is_not_read_without_guidance(full_model: Model) -> None:
    long = replace(job_with("distilled"), negative_prompt="red " * 300)
    assert not [event for event in run(full_model, long) if isinstance(event, Notice)]


def test_the_distilled_lora_does_not_affect_other_recipes(full_model: Model, plain: Pixels) -> None:
    with_lora = video(full_model, job_with("distilled"))
    without = video(replace(full_model, distilled_lora=None), job_with("distilled"))
    assert not np.array_equal(with_lora, without)
    assert np.array_equal(video(full_model, JOB), plain)


def test_events_report_the_stages_of_both_passes(full_model: Model) -> None:
    job = replace(
        job_with("multiscale", steps=10), conditions=(Condition(picture(1), 0, 1.0), Condition(picture(2), 7, 1.0))
    )
    events = [event for event in run(full_model, job) if not isinstance(event, Frames)]
    assert events[:5] == [Stage("conditions", 4), *map(Step, range(1, 5))]
    assert events[5:15] == [Stage("denoise", 9), *map(Step, range(1, 10))]
    assert events[15:21] == [Stage("upsample"), Stage("refine", 4), *map(Step, range(1, 5))]
    assert events[21:] == [Stage("decode", 12), Step(8), Step(12)]


def test_conditions_are_pinned_at_both_sizes(full_model: Model) -> None:
    """Without noise on conditions, a picture pinned at frame 0 with strength 1 comes out unchanged in both passes."""
    sampling = Sampling(condition_noise_scale=0.0)
    pinned = replace(job_with("multiscale", sampling), conditions=(Condition(picture(1), 0, 1.0),))
    with torch.inference_mode():
        small, large = result_of(encode_conditions(full_model, pinned))
        texts = [full_model.prompts.encode(prompt) for prompt in (pinned.prompt, pinned.negative_prompt)]
        recipe = recipe_of("multiscale", 3, 3.0, distilled=False)
        z = result_of(draw(full_model, pinned, recipe, texts, [small, large]))
    assert [pin.latents.shape[2:] for pin in (small[0], large[0])] == [(1, 2, 2), (1, 4, 4)]
    assert torch.equal(z[:, :, :1], large[0].latents)


def test_a_recipe_that_the_model_does_not_support_is_refused(model: Model) -> None:
    for recipe in ("multiscale", "distilled"):
        with pytest.raises(RequestError, match=f"Recipe {recipe} needs") as refused:
            next(run(model, job_with(recipe)))
        assert refused.value.problems[0].loc == ("recipe",)


def test_a_prompt_that_is_cut_is_reported(model: Model) -> None:
    events = list(run(model, replace(JOB, prompt="red " * 300, steps=1)))
    assert [event for event in events if isinstance(event, Notice)] == [
        Notice("The prompt is longer than the model can read: only its first 256 tokens are used.")
    ]


def test_unknown_words_of_the_prompt_are_reported(model: Model) -> None:
    words = [f"word{letter}" for letter in "abcdefghijk"]
    events = list(run(model, replace(JOB, prompt=f"red {' '.join(words)}", steps=1)))
    assert [event for event in events if isinstance(event, Notice)] == [
        Notice(f"The model does not know these words of the prompt: {', '.join(words[:8])} and 3 more.")
    ]


@pytest.fixture(scope="module")
def other_model(full_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same model, loaded again as another worker would."""
    return load_model(str(full_checkpoint), "cpu", tmp_path_factory.mktemp("cache"))


@pytest.mark.slow
@pytest.mark.parametrize("stochastic", [False, True], ids=["deterministic", "stochastic"])
@pytest.mark.parametrize("recipe", ["single", "multiscale"])
def test_a_video_resumed_at_any_step_has_the_same_bytes(
    full_model: Model, other_model: Model, recipe: RecipeName, stochastic: bool
) -> None:
    pins = (Condition(picture(1), 0, 0.9999999), Condition(picture(2), 7, 0.5))
    sampling = Sampling(stochastic_sampling=stochastic, adain=0.5)
    job = replace(job_with(recipe, sampling, steps=5), conditions=pins, checkpoints=True)
    undisturbed = list(run(full_model, job))
    checkpoints = checkpoints_of(undisturbed)
    both = [(0, done) for done in range(1, 6)], [(1, 1), (1, 2)] if recipe == "multiscale" else []
    assert [(checkpoint.index, checkpoint.step) for checkpoint in checkpoints] == [*both[0], *both[1]]
    for number, checkpoint in enumerate(checkpoints, start=1):
        resumed = list(run(other_model, job, checkpoint))
        assert np.array_equal(frames_of(resumed), frames_of(undisturbed))
        for ours, theirs in zip(checkpoints_of(resumed), checkpoints[number:], strict=True):
            assert np.array_equal(ours.tokens(), theirs.tokens())


def test_a_resumed_run_skips_what_the_checkpoint_contains(full_model: Model) -> None:
    job = replace(job_with("multiscale", steps=10), checkpoints=True)
    checkpoints = checkpoints_of(run(full_model, job))
    after_first, in_second = checkpoints[8], checkpoints[10]
    resumed = list(run(full_model, replace(job, checkpoints=False), in_second))
    assert resumed[:5] == [Stage("conditions", 0), Stage("refine", 4, done=2), Step(3), Step(4), Stage("decode", 12)]
    resumed = list(run(full_model, replace(job, checkpoints=False), after_first))
    assert resumed[:4] == [Stage("conditions", 0), Stage("denoise", 9, done=9), Stage("upsample"), Stage("refine", 4)]
