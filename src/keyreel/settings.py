"""Every setting, once. Each is read from the environment as KEYREEL_<NAME>."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

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
    max_body_bytes: int = Field(default=128 * MIB, gt=0, description="Largest JSON body, data URIs included.")
    retention: float = Field(default=DAY, gt=0, description="Seconds for which an outcome can be read.")
    input_lifetime: float = Field(
        default=30 * DAY, gt=0, description="Seconds for which a file sent as a data URI is kept."
    )

    # How the model is sampled. Part of what makes two videos equal, so part of the file's metadata.
    guidance_scale: float = Field(default=3.0, ge=1, description="Classifier-free guidance.")
    condition_noise_scale: float = Field(
        default=0.15, ge=0, description="Noise on fully pinned frames while denoising; helps motion."
    )
    decode_timestep: float = Field(default=0.05, ge=0, le=1, description="Noise level the decoder is told.")
    decode_noise_scale: float = Field(default=0.025, ge=0, le=1, description="Noise mixed in before decoding.")

    # Limits on what a request may bring.
    max_tokens: int = Field(default=24_576, gt=0, description="Latent cells in one video, conditions included.")
    max_image_bytes: int = Field(default=64 * MIB, gt=0)
    max_video_bytes: int = Field(default=512 * MIB, gt=0)
    max_lora_bytes: int = Field(default=4096 * MIB, gt=0)
    max_pixels: int = Field(default=100_000_000, gt=0, description="Pixels in one picture or frame.")
    max_video_seconds: float = Field(default=600, gt=0)
    fetch_timeout: float = Field(default=120, gt=0, description="Seconds for one download.")
