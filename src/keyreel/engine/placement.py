"""Places a model's weights on a device. The placement may change from request to request."""

from itertools import chain

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from torch import nn
from transformers import T5EncoderModel

from keyreel.checkpoints import memory as plans
from keyreel.checkpoints.memory import GIB, LEAST, ModelSize, Plan, Workload
from keyreel.engine.blocks import BlockStream
from keyreel.engine.devices import is_out_of_memory, main_memory, memory, release
from keyreel.errors import ModelError

PINNED_SHARE = 0.7
"""Share of the free main memory that may be pinned. Nothing else can use pinned memory."""


class Placement:
    """Places a model on a device according to a memory plan (see `keyreel.checkpoints.memory`)."""

    def __init__(
        self,
        transformer: LTXVideoTransformer3DModel,
        vae: AutoencoderKLLTXVideo,
        text_encoder: T5EncoderModel,
        size: ModelSize,
        device: torch.device,
        dtype: torch.dtype,
        ranks: int = 1,
    ) -> None:
        """Expects modules whose weights are mapped from their files. Raises ModelError if the device is too small.

        ranks: the number of processes that share main memory for the same model.
        """
        self.size = size
        self.plan = LEAST
        self._device = device
        self._correction = 0  # bytes that requests take beyond the estimates, learnt from failures
        self._pinned_limit = int(PINNED_SHARE * main_memory()[0] / ranks) if device.type == "cuda" else 0
        free, _ = memory(device)
        plan = plans.choose(size, plans.REFERENCE, free) or self.plan
        if (need := plans.held(plan, size)) > free:
            raise ModelError(
                f"The model needs {need / GIB:.1f} GiB of {device} even when everything that can stream does; "
                f"{free / GIB:.1f} GiB are free."
            )
        self._transformer = BlockStream(transformer.transformer_blocks, device, dtype)
        self._text = BlockStream(text_encoder.encoder.block, device, dtype)
        # Detach the blocks while all other weights move to the device.
        transformer.transformer_blocks, text_encoder.encoder.block = nn.ModuleList(), nn.ModuleList()
        for module in (transformer, vae, text_encoder):
            for tensor in chain(module.parameters(), module.buffers()):
                tensor.data = tensor.data.to(device, dtype, copy=True)
        transformer.transformer_blocks, text_encoder.encoder.block = self._transformer, self._text
        self._follow(plan)

    def fit(self, work: Workload) -> None:
        """Makes room for a request. If no plan fits, uses the least: the sizes are only estimates."""
        free, _ = memory(self._device)
        room = free + plans.held(self.plan, self.size) - self._correction
        plan = plans.following(self.plan, self.size, work, room)
        if plan != self.plan:
            self._follow(plan)

    def step_down(self, work: Workload) -> bool:
        """Changes to the next plan after a request ran out of memory. Returns False if there is none.

        Raises the estimates of later requests accordingly.
        """
        following = plans.after(self.plan, self.size.parameters)
        if following is None:
            return False
        self._correction += plans.needed(self.plan, self.size, work) - plans.needed(following, self.size, work)
        self._follow(following)
        return True

    @property
    def is_streaming(self) -> bool:
        return not self.plan.text

    @property
    def description(self) -> str:
        return plans.describe(self.plan, self.size.parameters)

    def _follow(self, plan: Plan) -> None:
        """Carries out a plan. If memory runs out, carries out the first of the following plans that fits."""
        try:
            self._lay_out(plan)
        except Exception as error:
            following = plans.after(plan, self.size.parameters)
            if following is None or not is_out_of_memory(error):
                raise
        else:
            return
        self._follow(following)

    def _lay_out(self, plan: Plan) -> None:
        self.plan = plan
        # The transformer's blocks are pinned first: they stream in each step, the text encoder's once per prompt.
        left = max(self._pinned_limit - plans.streamed_blocks(plan, self.size), 0)
        # This order suits both directions: the text encoder only stays when all transformer blocks stay.
        self._text.keep(len(self._text) if plan.text else 0, pin=left)
        self._transformer.keep(plan.blocks, pin=self._pinned_limit)
        release(self._device)
