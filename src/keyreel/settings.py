"""Every setting, once. Each is read from the environment as KEYREEL_<NAME>."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from keyreel.errors import KeyreelError
from keyreel.video.job import Sampling
from keyreel.video.recipes import UNPUBLISHED, Published, RecipeChoice, RecipeName, RecipeSettings, StgMode

MIB = 1024 * 1024
DAY = 86_400.0
SHORTEST_SECRET = 16
"""Characters. A shorter secret could be guessed."""


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL begins with https:// or http://, and names a host")
    return text.rstrip("/")


BaseURL = Annotated[str, AfterValidator(_base_url)]


class Settings(BaseSettings):
    """What the operator decides; what a request decides is in `keyreel.fal.schema`."""

    model_config = SettingsConfigDict(env_prefix="KEYREEL_", frozen=True)

    @model_validator(mode="wrap")
    @classmethod
    def _report(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Raises KeyreelError, which names each variable that is wrong. It has no values: some are secret."""
        try:
            return handler(values)
        except ValidationError as error:
            raise KeyreelError("\n".join(f"KEYREEL_{_problem(each)}." for each in error.errors())) from None

    cache_dir: Path = Field(
        default=Path.home() / ".cache" / "keyreel",
        description="Folder for the downloads of `keyreel generate`, and for the hashes of model files.",
    )

    # The server.
    data_dir: Path = Field(
        default=Path.home() / ".local" / "share" / "keyreel",
        description="Folder of `keyreel serve`: its database, its files and its signing keys.",
    )
    database_url: str | None = Field(
        default=None, description="`postgresql://...`. Without it, an SQLite file in the data folder."
    )
    object_store: str | None = Field(
        default=None,
        description="`s3://bucket/folder`, where inputs and videos are stored. Without it, a folder in the data "
        "folder.",
    )
    presign_seconds: float | None = Field(
        default=None,
        ge=1,
        le=7 * DAY,
        description="Seconds for which a link into the bucket is valid, to which the server redirects those who read a "
        "picture, clip or video. Without it, the server passes the content on itself.",
    )
    public_url: BaseURL | None = Field(
        default=None,
        description="URL under which clients reach this server. Every link that the server hands out starts with "
        "it. Without it, the address that the server listens on.",
    )
    admin_key: str | None = Field(
        default=None,
        repr=False,
        description="Key of an administrator, `id:secret`, that the server adds when it starts, in place of the one "
        "before. Without it, the first start makes a key and prints it.",
    )
    secret: str | None = Field(
        default=None,
        min_length=SHORTEST_SECRET,
        repr=False,
        description="Secret from which the keys of links, sessions, tokens and webhooks are derived. All processes of "
        "a fleet need the same. Required with PostgreSQL; without it, the data folder holds random keys.",
    )
    accepted_secrets: str = Field(
        default="",
        repr=False,
        description="Other secrets, comma-separated, whose links, sessions and tokens are valid, too: a former one, or "
        "the next one while it is being introduced.",
    )
    sandbox: Literal["auto", "required"] = Field(
        default="auto",
        description="How the process that opens pictures, clips and LoRAs is contained: `auto` uses what the system "
        "offers, `required` does not start workers where files or system calls cannot be contained. `keyreel doctor` "
        "shows what the system offers.",
    )
    allow_hosts: str = Field(
        default="",
        description="Private networks (CIDR) and host names, comma-separated, to which downloads and webhooks "
        "may connect.",
    )
    max_connections: int = Field(
        default=700,
        gt=0,
        description="Connections that may be open at a time. Each takes a file descriptor: see `ulimit -n`.",
    )
    max_connections_per_address: int = Field(
        default=128,
        gt=0,
        description="Connections that one address may have open, in IPv6 one /64 network. Reverse proxies that are "
        "named in `KEYREEL_TRUSTED_PROXIES` may have as many as there are.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses and networks (CIDR) of your own reverse proxies, comma-separated. Their "
        "`X-Forwarded-For` says who the client is.",
    )
    worker_name: str | None = Field(
        default=None,
        description="Name of this process's workers, to which the device is appended. No two running workers may share "
        "one. Without it, the host's name, on PostgreSQL with a random suffix.",
    )
    grace: float = Field(
        default=20.0,
        ge=0,
        description="Seconds that a stopping worker gives the requests on its device, or being checked, to finish.",
    )
    checkpoint_every: float = Field(
        default=5.0,
        ge=0,
        description="Seconds between two checkpoints of a video, from which another attempt goes on. 0 makes none.",
    )
    preempt: bool = Field(
        default=False,
        description="Let a request of normal priority take the device from one of low priority, which goes on later "
        "from where it was.",
    )
    endpoints: str = Field(
        default="", description="Ids of the endpoints to serve, comma-separated. All of them when empty."
    )
    models: str = Field(
        default="",
        description="The models of a fleet, comma-separated, if there are several. The requests of the first one wait "
        "in the queue `default`, those of another one in a queue of its name. `keyreel serve` with several `--model` "
        "sets it.",
    )
    substitute: bool | None = Field(
        default=None,
        description="Let another model, the first one, stand in for an endpoint's own where that is missing. Unset, "
        "only a single model does that for which fal had no endpoint: the demo, or one of your own. Endpoints without "
        "a model are not served.",
    )
    max_body_bytes: int = Field(
        default=128 * MIB, gt=0, description="Bytes of a request's JSON body, data URIs included, at most."
    )
    max_bytes_in_flight: int = Field(
        default=1024 * MIB,
        gt=0,
        description="Bytes of bodies and uploads that a process keeps in memory while they arrive, at most.",
    )
    max_bytes_in_flight_per_key: int = Field(
        default=512 * MIB, gt=0, description="The same for the bodies and uploads of one key."
    )
    max_streams_per_key: int = Field(
        default=100, gt=0, description="Streams of a status that one key may have open in a process."
    )
    retention: float = Field(default=DAY, gt=0, description="Seconds for which the outcome of a request can be read.")
    audit_retention: float = Field(
        default=365 * DAY, gt=0, description="Seconds for which an entry of the audit log is kept."
    )
    input_lifetime: float = Field(
        default=30 * DAY,
        gt=0,
        description="Seconds for which a file that came as a data URI is kept, at most. "
        "It is deleted with the last request that uses it.",
    )
    default_max_requests: int = Field(
        default=0, ge=0, description="Requests that a key may have waiting and running. 0: no limit."
    )
    default_max_queued: int = Field(
        default=1000, ge=0, description="Requests that a key may have waiting. 0: no limit."
    )
    default_max_running: int = Field(
        default=0, ge=0, description="Requests that a key may have running; further ones wait. 0: no limit."
    )
    default_max_per_minute: int = Field(
        default=600, ge=0, description="Requests that a key may submit in a minute. 0: no limit."
    )
    default_max_bytes: int = Field(
        default=100 * 1024 * MIB, ge=0, description="Total size of the files that a key may store. 0: no limit."
    )
    default_max_upload_bytes: int = Field(
        default=20 * 1024 * MIB, ge=0, description="Bytes that a key may upload in a day, in UTC. 0: no limit."
    )
    min_free_bytes: int = Field(
        default=1024 * MIB,
        ge=0,
        description="Bytes that stay free on the server's disk: below, it refuses uploads and new requests with 507, "
        "and `keyreel worker` takes no request. 0 switches this off.",
    )
    output_lifetime: float | None = Field(
        default=None,
        gt=0,
        description="Seconds for which a video is kept, at most. Without it, videos are not deleted.",
    )

    # How the model is sampled. Part of what makes two videos equal, so part of the file's metadata.
    recipe: RecipeChoice | None = Field(
        default=None,
        description="Recipe of requests that name none. Without it, `distilled` with a distilled model and "
        "`single` with any other. `published` is the one that the model's makers use, with their steps.",
    )
    guidance_scale: float = Field(
        default=3.0, ge=1, description="Scale of classifier-free guidance in the recipe `single`. 1 switches it off."
    )
    stg_mode: StgMode = Field(
        default="attention_values",
        description="How spatio-temporal guidance perturbs a transformer block: `attention_values` replaces its "
        "self-attention by the values, `attention_skip` leaves the self-attention out, `transformer_block` leaves the "
        "whole block out.",
    )
    stochastic_sampling: bool | None = Field(
        default=None,
        description="Replace the remaining noise by fresh noise in every step. Without it, as the model's makers do.",
    )
    adain: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="How closely the second of two passes keeps the first pass's colours. 0: not at all.",
    )
    tone_map: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="How strongly extreme latents are compressed before they are decoded. 0: not at all. Without it, "
        "as the model's makers do. A request can set its own value.",
    )
    condition_noise_scale: float = Field(
        default=0.15,
        ge=0,
        description="Noise on frames that a picture or clip fixes completely, while denoising. It helps motion.",
    )
    decode_timestep: float = Field(default=0.05, ge=0, le=1, description="Noise level that the decoder assumes.")
    decode_noise_scale: float = Field(
        default=0.025, ge=0, le=1, description="Share of noise that is mixed into the latents before they are decoded."
    )

    # What happens to a prompt, and what is checked and marked: see docs/safety.md.
    expander_url: BaseURL | None = Field(
        default=None, description="`https://host/v1` of an OpenAI-compatible chat server that expands prompts."
    )
    expander_model: str | None = Field(
        default=None,
        description="Model of that chat server. Without a server, a folder or hub repository of a language model "
        "that runs here.",
    )
    expander_key: str | None = Field(default=None, repr=False, description="API key for the chat server.")
    expander_vision_model: str | None = Field(
        default=None,
        description="Model, on the chat server or run here, that describes the first picture for the expansion.",
    )
    expander_timeout: float = Field(default=60, gt=0, description="Seconds for one expansion, at most.")
    image_checker: str = Field(
        default="auto",
        description="Checker of pictures, clips and videos: `nudenet`, a folder or hub repository of an image "
        "classifier, or `off`. `auto` is Falconsai/nsfw_image_detection where the video model runs "
        "on CUDA, and `off` elsewhere.",
    )
    image_checker_labels: str = Field(
        default="",
        description="Labels of the image checker that are refused: `LABEL` or `LABEL=THRESHOLD`, "
        "comma-separated. When empty, `nsfw` or NudeNet's labels for exposed private parts.",
    )
    text_checker: str | None = Field(
        default=None,
        description="Folder or hub repository of a text classifier that checks prompts. Without it, prompts are "
        "not checked.",
    )
    text_checker_labels: str = Field(
        default="",
        description="Labels of the text checker that are refused, in the same form. When empty, `nsfw`; a "
        "checker without that label needs a list here.",
    )
    checked_frames: int = Field(
        default=16, gt=0, description="Frames of each clip and video that are checked, at most. They are spread evenly."
    )
    guard_device: str = Field(
        default="cpu", description="Device of the expander and the checkers that run here: `cpu`, `cuda:1`, ..."
    )
    provenance: bool = Field(default=True, description="Mark videos as made by AI, with a signed C2PA manifest.")
    c2pa_certificate: Path | None = Field(
        default=None,
        description="PEM file: the signer's certificate, followed by those of its issuers. Without it, Keyreel "
        "makes one.",
    )
    c2pa_key: Path | None = Field(
        default=None, description="PEM file: the private key of that certificate, not encrypted."
    )

    # What recipes need beside the model.
    upsampler: str | None = Field(
        default=None,
        description="Latent upsampler: a .safetensors file, a folder or a hub repository. Without it, the one "
        "that the model comes with.",
    )
    distilled_lora: str | None = Field(
        default=None,
        description="LoRA that turns the model into a distilled one: a file, or `owner/name/file` on the hub.",
    )

    # Limits on what a request may bring.
    max_tokens: int = Field(
        default=40_960, gt=0, description="Latent cells in one video, conditions included, at most."
    )
    max_image_bytes: int = Field(default=64 * MIB, gt=0, description="Bytes of one picture, at most.")
    max_video_bytes: int = Field(default=512 * MIB, gt=0, description="Bytes of one clip, at most.")
    max_lora_bytes: int = Field(default=4096 * MIB, gt=0, description="Bytes of one LoRA, at most.")
    lora_cache_bytes: int = Field(
        default=20 * 1024 * MIB,
        ge=0,
        description="Bytes of the LoRAs that a worker keeps in the data folder after it has downloaded them. Those not "
        "used for longest are deleted first. 0 keeps none.",
    )
    max_pixels: int = Field(
        default=100_000_000, gt=0, description="Pixels in one picture, or in one frame of a clip, at most."
    )
    max_picture_memory: int = Field(
        default=1024 * MIB,
        gt=0,
        description="Bytes of memory that one picture may take while it is decoded, at most. A pixel of a PNG, JPEG or "
        "GIF takes 10, one of a WebP or AVIF 20.",
    )
    max_video_seconds: float = Field(default=600, gt=0, description="Seconds that a clip may last, at most.")
    hub_token_for_loras: bool = Field(
        default=False,
        description="Let every key use LoRAs in the private and gated hub repositories that the server's own token "
        "opens.",
    )
    fetch_timeout: float = Field(default=120, gt=0, description="Seconds for one download, at most.")

    @property
    def recipe_settings(self) -> RecipeSettings:
        return RecipeSettings(self.recipe, self.upsampler, self.distilled_lora)

    def sampling(self, recipe: RecipeName, published: Published = UNPUBLISHED) -> Sampling:
        """How a model runs `recipe` here, by the settings of the same names, or else as its makers published it."""
        values = {name: getattr(self, name) for name in Sampling.__slots__ if name != "recipe"}
        own = {name: getattr(published, name) for name, value in values.items() if value is None}
        return Sampling(recipe, **values | own)


def _problem(error: ErrorDetails) -> str:
    return f"{str(error['loc'][0]).upper()}: {error['msg'].removeprefix('Value error, ')}"
