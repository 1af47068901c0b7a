"""Measures Keyreel's engine on a GPU, with random weights in the layout of the 13B model."""

import os

# torch then counts the GPUs without touching them. Processes that are forked after a touch could not use them.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
