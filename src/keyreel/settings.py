"""Every setting, once. Each is read from the environment as KEYREEL_<NAME>."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from keyreel.recipes import RecipeName, StgMode, Wishes

MIB = 1024 * 1024
DAY = 86_400.0

BaseURL = Annotated[str, AfterValidator(lambda url: url.rstrip("/"))]


class Settings(BaseSettings):
    """What the operator decides; what a request decides is in `keyreel.schema`."""

    model_config = SettingsConfigDict(env_prefix="KEYREEL_", frozen=True)

    cache_dir: Path = Field(
        default=Path.home() / ".cache" / "keyreel", description="Fetched inputs and LoRAs, by content."
    )

    # The server.
    data_dir: Path = Field(
        default=Path.home() / ".local" / "share" / "keyreel",
        description="The database and the files of `keyreel serve`.",
    )
    database_url: str | None = Field(
        default=None, description="`postgresql://...`; an SQLite file in the data folder when absent."
    )
    object_store: str | None = Field(
        default=None, description="`s3://bucket/folder` for inputs and videos; a folder in the data folder when absent."
    )
    public_url: BaseURL | None = Field(
        default=None, description="How clients reach this server: the start of every URL that it hands out."
    )
    admin_key: str | None = Field(
        default=None, repr=False, description="`id:secret` of a key that is set at the start."
    )
    allow_hosts: str = Field(
        default="", description="Private addresses (CIDRs) and names, comma-separated, open to fetches and webhooks."
    )
    endpoints: str = Field(
        default="", description="Which of fal's endpoints are served, comma-separated. All if empty."
    )
    max_body_bytes: int = Field(default=128 * MIB, gt=0, description="Largest JSON body, data URIs included.")
    retention: float = Field(default=DAY, gt=0, description="Seconds for which an outcome can be read.")
    input_lifetime: float = Field(
        default=30 * DAY, gt=0, description="Seconds for which a file sent as a data URI is kept."
    )
    output_lifetime: float | None = Field(
        default=None, gt=0, description="Seconds for which a video is kept at most. For ever when absent."
    )

    # How the model is sampled. Part of what makes two videos equal, so part of the file's metadata.
    recipe: RecipeName | None = Field(
        default=None, description="For requests that name none: `single`, or `distilled` with a distilled model."
    )
    guidance_scale: float = Field(default=3.0, ge=1, description="Classifier-free guidance of the recipe `single`.")
    stg_mode: StgMode = Field(default="attention_values", description="How spatio-temporal guidance perturbs a block.")
    stochastic_sampling: bool = Field(default=False, description="Fresh noise in each step.")
    adain: float = Field(
        default=1.0, ge=0, le=1, description="How closely the upsampled latents keep to the first pass' colours."
    )
    tone_map: float = Field(default=0.0, ge=0, le=1, description="How strongly extreme latents are compressed.")
    condition_noise_scale: float = Field(
        default=0.15, ge=0, description="Noise on fully pinned frames while denoising; helps motion."
    )
    decode_timestep: float = Field(default=0.05, ge=0, le=1, description="Noise level the decoder is told.")
    decode_noise_scale: float = Field(default=0.025, ge=0, le=1, description="Noise mixed in before decoding.")

    # What happens to a prompt, and what is checked and marked: see docs/safety.md.
    expander_url: BaseURL | None = Field(
        default=None, description="`https://host/v1` of an OpenAI-compatible chat server that expands prompts."
    )
    expander_model: str | None = Field(
        default=None, description="The model there; without a server a folder or hub repository of a causal LM."
    )
    expander_key: str | None = Field(default=None, repr=False, description="The server's API key.")
    expander_vision_model: str | None = Field(
        default=None, description="A model, there or here, that says what the first picture shows."
    )
    expander_timeout: float = Field(default=60, gt=0, description="Seconds for one expansion.")
    image_checker: str = Field(
        default="auto",
        description="`nudenet`, a classifier's folder or hub repository, or `off`. `auto`: "
        "Falconsai/nsfw_image_detection where the model runs on CUDA, else none.",
    )
    image_checker_labels: str = Field(
        default="", description="`LABEL[=THRESHOLD]`, comma-separated: what is refused. The known ones when empty."
    )
    text_checker: str | None = Field(
        default=None, description="Folder or hub repository of a text classifier for prompts. None when absent."
    )
    text_checker_labels: str = Field(default="", description="As for pictures.")
    checked_frames: int = Field(default=16, gt=0, description="Frames of a clip or video that are looked at.")
    guard_device: str = Field(default="cpu", description="Where expander and checkers run, if they run here.")
    provenance: bool = Field(default=True, description="Mark videos as made by AI: a signed C2PA manifest.")
    c2pa_certificate: Path | None = Field(
        default=None, description="PEM: the signer's certificate, its issuers behind it. One is made when absent."
    )
    c2pa_key: Path | None = Field(default=None, description="PEM: the certificate's private key.")

    # What recipes need beside the model.
    upsampler: str | None = Field(
        default=None, description="Latent upsampler: a .safetensors file, a folder or a hub repository."
    )
    distilled_lora: str | None = Field(
        default=None,
        description="LoRA that makes a distilled model of this one: a file, or `owner/name/file` on the hub.",
    )

    # Limits on what a request may bring.
    max_tokens: int = Field(default=40_960, gt=0, description="Latent cells in one video, conditions included.")
    max_image_bytes: int = Field(default=64 * MIB, gt=0)
    max_video_bytes: int = Field(default=512 * MIB, gt=0)
    max_lora_bytes: int = Field(default=4096 * MIB, gt=0)
    max_pixels: int = Field(default=100_000_000, gt=0, description="Pixels in one picture or frame.")
    max_video_seconds: float = Field(default=600, gt=0)
    fetch_timeout: float = Field(default=120, gt=0, description="Seconds for one download.")

    @property
    def wishes(self) -> Wishes:
        return Wishes(self.recipe, self.upsampler, self.distilled_lora)
