"""Makes the gallery: a video of each request in examples/gallery, and the page that shows them.

`make gallery` runs it. Pictures go into a folder beside the page, with the page's name.
"""

import argparse
import json
from pathlib import Path

import av
from PIL import Image

import keyreel
from keyreel.engine.models import Model
from keyreel.media.frames import rgb_pixels

EVERY = 2
"""Of how many frames a loop shows one."""
WIDTH = 384
INTRODUCTION = """# Gallery

This page shows videos that the demo model made from the requests in [examples/gallery](../examples/gallery), scaled
down and with every second frame. To make one yourself, run this command; it makes the same video each time:

```sh
keyreel generate --request examples/gallery/{first} --out first.mp4
```

`make gallery` makes all videos again and rewrites this page.
"""


def write_loop(video: Path, out: Path) -> None:
    """Writes a small animation of a video."""
    with av.open(str(video)) as container:
        rate = float(container.streams.video[0].average_rate or 25)
        frames = [
            Image.fromarray(rgb_pixels(frame))
            for index, frame in enumerate(container.decode(video=0))
            if index % EVERY == 0
        ]
    small = [frame.resize((WIDTH, round(WIDTH * frame.height / frame.width))) for frame in frames]
    duration = round(1000 * EVERY / rate)
    small[0].save(out, save_all=True, append_images=small[1:], duration=duration, loop=0, quality=50, method=6)


def entry(request: Path, model: Model, page: Path, videos: Path) -> str:
    """Makes the video and its loop. Returns the section of the page."""
    video, loop = videos / f"{request.stem}.mp4", page.with_suffix("") / f"{request.stem}.webp"
    fields = json.loads(request.read_text())
    keyreel.generate(fields, model=model, out=video, base=request.parent)
    loop.parent.mkdir(parents=True, exist_ok=True)
    write_loop(video, loop)
    others = json.dumps({name: value for name, value in fields.items() if name != "prompt"})
    picture = f"![The video]({page.stem}/{loop.name})"
    looks = "".join(f', with the LoRA "{Path(lora["path"]).stem}"' for lora in fields.get("loras", ()))
    return f'## "{fields["prompt"]}"{looks}\n\n{picture}\n\n[{request.name}](../{request.as_posix()}): `{others}`\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=Path, default=Path("examples/gallery"))
    parser.add_argument("--page", type=Path, default=Path("docs/gallery.md"))
    parser.add_argument("--videos", type=Path, default=Path("out/gallery"))
    given = parser.parse_args()
    given.videos.mkdir(parents=True, exist_ok=True)
    model = keyreel.load_model("demo")
    requests = sorted(given.requests.glob("*.json"))
    entries = [entry(path, model, given.page, given.videos) for path in requests]
    given.page.write_text("\n".join([INTRODUCTION.format(first=requests[0].name), *entries]))


if __name__ == "__main__":
    main()
