"""What the processes of a worker inherit of its environment. Other variables may hold keys and passwords."""

import os
import re

SYSTEM = re.compile(r"HOME|LANG|LC_\w+|LD_\w+|LOGNAME|MALLOC_\w+|PATH|PYTHON\w*|TMPDIR|TZ|USER")
NETWORK = re.compile(
    r"(ALL|HTTPS?|NO)_PROXY|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE"
    r"|HF_(ENDPOINT|HOME|TOKEN_PATH|HUB_\w+|XET_\w+)|HUGGINGFACE_HUB_CACHE|XDG_CACHE_HOME",
    re.IGNORECASE,
)
"""How to reach the hub, and where its cache is. Its token travels in the message that loads a model."""
LIBRARIES = re.compile(
    r"CC|(AMD|CUBLAS|CUDA|CUDNN|DYLD|GLOO|GOMP|GPU|HIP|HSA|KMP|METAL|MIOPEN|MKL|MTL|NCCL|NUMBA|NVIDIA|OMP|OPENBLAS|PYTORCH"
    r"|ROCBLAS|ROCM|ROCR|SAFETENSORS|SYCL|TOKENIZERS|TORCH|TORCHINDUCTOR|TRANSFORMERS|TRITON|UCX|XPU|ZE)_\w+"
)
"""What tunes the libraries of models and devices. With CC, Triton finds a C compiler of another name."""


def of_system() -> dict[str, str]:
    """Returns the environment of a process that needs neither a device nor the network."""
    return _inherited(SYSTEM)


def of_models() -> dict[str, str]:
    """Returns the environment of a process that fetches models from the hub and runs them on a device."""
    return _inherited(SYSTEM, NETWORK, LIBRARIES)


def _inherited(*patterns: re.Pattern[str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if any(pattern.fullmatch(name) for pattern in patterns)}
