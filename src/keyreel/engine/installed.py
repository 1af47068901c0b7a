"""Whether the packages that the model needs are installed. Imports none of them."""

from importlib.util import find_spec

from keyreel.errors import ModelError

PACKAGES = ("torch", "diffusers", "transformers", "accelerate")
"""What `keyreel[engine]` adds, as far as every video needs it."""
INSTALL = "pip install 'keyreel[engine]'"


def missing_packages() -> tuple[str, ...]:
    return tuple(package for package in PACKAGES if find_spec(package) is None)


def check_engine(otherwise: str = "") -> None:
    """Raises ModelError if a package is missing. otherwise: what else the caller can do, such as ", or ..."."""
    if missing := missing_packages():
        raise ModelError(f"The engine is not installed (missing: {', '.join(missing)}). Run {INSTALL}{otherwise}.")
