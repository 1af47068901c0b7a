"""A guard process without models. It checks a video for as long as the named pipe is empty that the prompt names.

The prompt has the word `check=PATH`. Each byte in the pipe lets one video pass.
"""

from pathlib import Path

from keyreel.worker.channel import Channel
from keyreel.worker.messages import Check, Checked, GuardReady


def main() -> None:
    channel, pipe = Channel.to_supervisor(), ""
    channel.receive()
    channel.send(GuardReady())
    while True:
        order = channel.receive()
        assert isinstance(order, Check)
        for prompt in order.prompts:
            pipe = next(word.removeprefix("check=") for word in prompt.split() if word.startswith("check="))
        if order.video:
            with Path(pipe).open("rb", buffering=0) as gate:
                assert gate.read(1)
        channel.send(Checked())


if __name__ == "__main__":
    main()
