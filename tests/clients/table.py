"""The clients that `make clients` runs: one line each, with exact versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

BEFORE = "2026-11-30"
"""What the packages below depend on is resolved as of this day, so that a later release of it changes nothing."""

CAPABILITIES = ("submit", "status", "result", "subscribe", "cancel", "upload", "file input", "download")


@dataclass(frozen=True, slots=True, eq=False)
class Client:
    """A client in one version.

    `packages` are exact versions from PyPI or npm. `program` lies in `programs/` and gets `arguments`.
    """

    name: str
    ecosystem: Literal["python", "node"]
    packages: tuple[str, ...]
    program: str
    arguments: tuple[str, ...] = ()
    quick: bool = False
    """Whether `make test` runs it, too."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What keeps the client from calling home, for news and statistics."""
    limits: Mapping[str, str] = field(default_factory=dict)
    """What does not work for a reason that lies in the client, with the reason."""


SERVERLESS = "@fal-ai/serverless-client"
TSLIB = "tslib@2.8.1"
"""The oldest versions of `serverless-client` import it, but do not depend on it."""
PROXY = ("@fal-ai/server-proxy@1.2.1", "@fal-ai/client@1.10.1")
NUMBERS = (
    "It reaches a model only by a number and a host below `gateway.alpha.fal.ai`, fal's form before `fal-ai/name`. "
    "`keyreel wrap` refuses that host."
)
HONO = "The proxy insists on a body, but the client cancels without one. It cannot cancel on fal, either."
LITELLM_PROXY = "It cannot be installed: `litellm-proxy` 1.110.2, on which it depends, is not in the package registry."


def _python(version: str, *, quick: bool = False) -> Client:
    return Client(f"fal_client {version}", "python", (f"fal-client=={version}",), "fal_client_calls.py", quick=quick)


def _javascript(package: str, version: str, *more: str, quick: bool = False) -> Client:
    packages = f"{package}@{version}", *more
    return Client(f"{package} {version}", "node", packages, "fal_client.mjs", (package,), quick=quick)


def _by_number(version: str) -> Client:
    limits = dict.fromkeys(("submit", "status", "result", "subscribe", "file input", "download"), NUMBERS)
    client = _javascript(SERVERLESS, version, TSLIB)
    return replace(client, arguments=(SERVERLESS, "110602490-ltx-video"), limits=limits)


def _vercel(version: str, adapter: str, *, quick: bool = False) -> Client:
    packages = f"ai@{version}", f"@ai-sdk/fal@{adapter}", "zod@4.6.7"
    return Client(f"ai {version} with @ai-sdk/fal {adapter}", "node", packages, "vercel.mjs", quick=quick)


def _next(name: str, route: str) -> Client:
    packages = *PROXY, "next@16.4.6", "react@19.3.1", "react-dom@19.3.1"
    quiet = {"NEXT_TELEMETRY_DISABLED": "1"}
    return Client(f"@fal-ai/server-proxy 1.2.1 in {name}", "node", packages, "next.mjs", (route,), environment=quiet)


def _hugging_face(version: str, *, quick: bool = False) -> Client:
    client = Client(f"huggingface_hub {version}", "python", (f"huggingface_hub=={version}",), "hugging_face.py")
    return replace(client, quick=quick, environment={"HF_HUB_DISABLE_TELEMETRY": "1"})


def _lite_llm(name: str, package: str, program: str, limits: Mapping[str, str] | None = None) -> Client:
    local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return Client(name, "python", (package,), program, environment=local, limits=limits or {})


CLIENTS = (
    *map(_python, ("0.1.0", "0.2.2", "0.4.1", "0.5.9", "0.7.0", "0.10.0", "0.12.0", "0.13.2", "0.14.1")),
    _python("1.0.3", quick=True),
    _by_number("0.5.4"),
    # It takes names of two parts only.
    replace(_javascript(SERVERLESS, "0.8.2", TSLIB), arguments=(SERVERLESS, "fal-ai/ltx-video-lora")),
    *(_javascript(SERVERLESS, version) for version in ("0.9.3", "0.12.0", "0.15.0")),
    *(_javascript("@fal-ai/client", version) for version in ("1.0.2", "1.2.3", "1.5.0", "1.7.2", "1.8.5", "1.9.6")),
    _javascript("@fal-ai/client", "1.10.1", quick=True),
    Client("@fal-ai/server-proxy 1.2.1 in Express", "node", (*PROXY, "express@4.22.3"), "express.mjs"),
    Client(
        "@fal-ai/server-proxy 1.2.1 in Hono",
        "node",
        (*PROXY, "hono@4.13.19", "@hono/node-server@2.1.9"),
        "hono.mjs",
        limits={"cancel": HONO},
    ),
    _next("Next 16", "/api/fal/proxy"),
    _next("Next 16, edge runtime", "/api/fal/edge"),
    _vercel("6.0.326", "2.0.59"),
    _vercel("7.0.173", "3.0.41", quick=True),
    Client(
        "@tanstack/ai 0.58.0 with @tanstack/ai-fal 0.10.1",
        "node",
        ("@tanstack/ai-fal@0.10.1", "@tanstack/ai@0.58.0"),
        "tanstack.mjs",
    ),
    _hugging_face("0.36.2"),
    _hugging_face("1.33.0"),
    _hugging_face("2.4.0", quick=True),
    _lite_llm("litellm 1.110.2", "litellm==1.110.2", "lite_llm.py"),
    _lite_llm("litellm 1.105.7, proxy", "litellm[proxy]==1.105.7", "lite_llm_proxy.py"),
    _lite_llm(
        "litellm 1.110.2, proxy",
        "litellm[proxy]==1.110.2",
        "lite_llm_proxy.py",
        dict.fromkeys(CAPABILITIES, LITELLM_PROXY),
    ),
    Client("fal-mcp-server 1.18.0", "python", ("fal-mcp-server==1.18.0", "mcp==1.30.0"), "mcp_server.py"),
    Client("fal 1.83.0", "python", ("fal==1.83.0",), "fal_package.py"),
)
