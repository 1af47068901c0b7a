"""Where a model's weights are: the part of it that changes from request to request."""

from itertools import chain

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from torch import nn
from transformers import T5EncoderModel

from keyreel import plans
from keyreel.engine.blocks import BlockStream
from keyreel.engine.devices import is_out_of_memory, main_memory, memory, release
from keyreel.errors import ModelError
from keyreel.plans import GIB, LEAST, ModelSize, Plan, Workload

PINNED_SHARE = 0.7
"""Of the main memory that is free: the rest of the machine cannot use pinned memory."""


class Placement:
    """Lays a model out on a device, by a plan (see `keyreel.plans`)."""

    def __init__(
        self,
        transformer: LTXVideoTransformer3DModel,
        vae: AutoencoderKLLTXVideo,
        text_encoder: T5EncoderModel,
        size: ModelSize,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """The modules' weights lie in their files. Raises ModelError when the device has no room for it."""
        self.size = size
        self.plan = LEAST
        self._device = device
        self._learnt = 0
        self._pinnable = PINNED_SHARE * main_memory()[0] if device.type == "cuda" else 0
        free, _ = memory(device)
        plan = plans.choose(size, plans.REFERENCE, free) or self.plan
        if (need := plans.held(plan, size)) > free:
            raise ModelError(
                f"The model takes {need / GIB:.1f} GiB of {device} even when all that can stream does; "
                f"{free / GIB:.1f} GiB are free."
            )
        self._transformer = BlockStream(transformer.transformer_blocks, device, dtype, int8=size.int8)
        self._text = BlockStream(text_encoder.encoder.block, device, dtype)
        # Aside, while what always stays is brought.
        transformer.transformer_blocks, text_encoder.encoder.block = nn.ModuleList(), nn.ModuleList()
        for module in (transformer, vae, text_encoder):
            for tensor in chain(module.parameters(), module.buffers()):
                tensor.data = tensor.data.to(device, dtype, copy=True)
        transformer.transformer_blocks, text_encoder.encoder.block = self._transformer, self._text
        self._follow(plan)

    def fit(self, work: Workload) -> None:
        """Makes room for a request. What no plan has room for is tried with the least: sizes are estimates."""
        free, _ = memory(self._device)
        room = free + plans.held(self.plan, self.size) - self._learnt
        plan = plans.choose(self.size, work, room) or LEAST
        if plan != self.plan:
            self._follow(plan)

    def step_down(self, work: Workload) -> bool:
        """After a request ran out of memory: to the next plan, and from now on expect such requests to take more.

        Returns False when there is none.
        """
        following = plans.after(self.plan, self.size.parameters)
        if following is None:
            return False
        self._learnt += plans.needed(self.plan, self.size, work) - plans.needed(following, self.size, work)
        self._follow(following)
        return True

    @property
    def is_streaming(self) -> bool:
        return not self.plan.text

    @property
    def description(self) -> str:
        return plans.describe(self.plan, self.size.parameters)

    def _follow(self, plan: Plan) -> None:
        """Follows a plan, or the first after it that there turns out to be room for."""
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
        pinned = plans.streamed(plan, self.size) < self._pinnable
        # In this order either way: the text encoder only stays where all blocks of the transformer do.
        self._text.keep(len(self._text) if plan.text else 0, pinned=pinned)
        self._transformer.keep(plan.blocks, pinned=pinned)
        release(self._device)
