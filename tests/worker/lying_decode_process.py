"""The decode process, taken over by a file: it answers with a LoRA that the request did not bring."""

from pathlib import Path

from keyreel.video.canvas import Size
from keyreel.video.job import AdapterFile, Job, Prepared
from keyreel.worker import decode_process
from keyreel.worker.messages import Decode, Spooled


async def decode(order: Decode) -> Spooled:
    adapter = AdapterFile(Path("/data/another.safetensors"), "lora", "0" * 64, 1.0, ("loras", 0, "path"))
    job = Job("a circle", "", Size(64, 64), 9, 1, 25, 5, adapters=(adapter,), sampling=order.sampling)
    return Spooled(Prepared(job, {}), ())


if __name__ == "__main__":
    decode_process.main(decode)
