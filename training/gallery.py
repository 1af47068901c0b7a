"""Makes the gallery: a video of each request in examples/gallery, and the page that shows their frames.

`make gallery` runs it. Pictures go into a folder beside the page, with the page's name.
"""

import argparse
import json
from pathlib import Path

from PIL import Image

import keyreel
from keyreel.engine.models import Model
from keyreel.media.sheet import contact_sheet

INTRODUCTION = """# Gallery

This page shows six frames of each video that the demo model makes from the requests in
[examples/gallery](../examples/gallery). One command makes a video, and makes the same video each time:

```sh
keyreel generate --request examples/gallery/01-moving-circle.json --out circle.mp4
```

`make gallery` makes all videos again and writes this page.
"""


def entry(request: Path, model: Model, page: Path, videos: Path) -> str:
    """Makes the video and the picture of its frames. Returns the section of the page."""
    video, sheet = videos / f"{request.stem}.mp4", page.with_suffix("") / f"{request.stem}.webp"
    fields = json.loads(request.read_text())
    keyreel.generate(fields, model=model, out=video, base=request.parent)
    draft = videos / f"{request.stem}.png"
    contact_sheet(video, draft, columns=6, count=6, width=208)
    sheet.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(draft) as picture:
        picture.save(sheet, quality=80)
    others = json.dumps({name: value for name, value in fields.items() if name != "prompt"})
    picture_of = f"![Six frames]({page.stem}/{sheet.name})"
    return f'## "{fields["prompt"]}"\n\n{picture_of}\n\n[{request.name}](../{request.as_posix()}): `{others}`\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=Path, default=Path("examples/gallery"))
    parser.add_argument("--page", type=Path, default=Path("docs/gallery.md"))
    parser.add_argument("--videos", type=Path, default=Path("out/gallery"))
    given = parser.parse_args()
    given.videos.mkdir(parents=True, exist_ok=True)
    model = keyreel.load_model("demo")
    entries = [entry(path, model, given.page, given.videos) for path in sorted(given.requests.glob("*.json"))]
    given.page.write_text("\n".join([INTRODUCTION, *entries]))


if __name__ == "__main__":
    main()
