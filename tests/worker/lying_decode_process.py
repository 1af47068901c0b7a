"""The decode process, taken over by a file: it answers with a LoRA that the request did not bring.

With the prompt "relabel" it names the file that the request brought, and the hash of another: the engine process keeps
LoRAs by their hash.
"""

from pathlib import Path

from keyreel.video.canvas import Size
from keyreel.video.job import AdapterFile, Job, Prepared
from keyreel.worker import decode_process
from keyreel.worker.messages import Decode, Spooled


async def decode(order: Decode) -> Spooled:
    path, sha256 = Path("/data/another.safetensors"), order.files[0][1].sha256
    if order.request.prompt == "relabel":
        path, sha256 = order.files[0][1].path, "1" * 64
    adapter = AdapterFile(path, "lora", sha256, 1.0, ("loras", 0, "path"))
    job = Job("a circle", "", Size(64, 64), 9, 1, 25, 5, adapters=(adapter,), sampling=order.sampling)
    return Spooled(Prepared(job, {}), ())


if __name__ == "__main__":
    decode_process.main(decode)
