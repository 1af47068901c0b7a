"""Decodes untrusted picture files to pixels of a given size."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from keyreel.errors import Loc, RequestError
from keyreel.media.compression import compressed
from keyreel.media.limits import Limits
from keyreel.video.canvas import Size

_OPENING = Lock()

Point = tuple[float, float]
"""x and y as shares of a picture's width and height as displayed, from the top left corner."""
CENTRE: Point = (0.5, 0.5)

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF")
BYTES_PER_PIXEL = {"WEBP": 20, "AVIF": 20}
"""Memory that decoding takes, as measured: of the decoder, the picture and a copy. Other formats take OTHERS."""
OTHERS = 10
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif")
SIGNATURE = re.compile(rb"\x89PNG|\xff\xd8\xff|RIFF....WEBP|....ftypavi[fs]|GIF8", re.DOTALL)
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns a picture upright, by EXIF orientation."""
STORED = {
    2: lambda x, y: (1 - x, y),
    3: lambda x, y: (1 - x, 1 - y),
    4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x),
    6: lambda x, y: (y, 1 - x),
    7: lambda x, y: (1 - y, 1 - x),
    8: lambda x, y: (1 - y, x),
}
"""Where a point of the upright picture is in the stored one, by EXIF orientation."""
SRGB = ImageCms.createProfile("sRGB")
STRIP = 1 << 21
"""Pixels that are converted at a time."""


def image_size(path: Path, limits: Limits, loc: Loc) -> Size:
    """Returns the size as displayed, after the EXIF orientation. Reads only the header. Raises RequestError."""
    with _open(path, limits, loc) as image:
        size = Size(*image.size)
        return _swap(size) if _orientation(image) >= 5 else size


def read_image(
    path: Path, size: Size, limits: Limits, loc: Loc, focus: Point = CENTRE, rate_factor: int = 0
) -> NDArray[np.uint8]:
    """Returns the picture as displayed, cropped and scaled: (height, width, 3), sRGB. Raises RequestError.

    Of an animation it returns the first picture. focus, rate_factor: see `cover`.
    """
    with _open(path, limits, loc) as image:
        orientation = _orientation(image)
        stored = STORED[orientation](*focus) if orientation in STORED else focus
        stored_size = _swap(size) if orientation >= 5 else size
        fitted = cover(_rgb(image), stored_size, focus=stored, rate_factor=rate_factor)
        if orientation in UPRIGHT:
            fitted = fitted.transpose(UPRIGHT[orientation])
        return np.array(fitted)


def cover(
    image: Image.Image, size: Size, pixel_aspect: float = 1.0, focus: Point = CENTRE, rate_factor: int = 0
) -> Image.Image:
    """Returns the image cropped to the aspect ratio of `size`, then scaled. Nothing is stretched or padded.

    pixel_aspect: the width of a pixel over its height. It differs from 1 in some clips.
    focus: the point of the image that comes as near to the centre of the crop as the image's edges allow.
    rate_factor: how strongly the crop is compressed before it is scaled; 0 leaves it as it is.
    """
    scale = max(size.width / (image.width * pixel_aspect), size.height / image.height)
    width = min(image.width, size.width / (scale * pixel_aspect))
    height = min(image.height, size.height / scale)
    left = max(0.0, min(focus[0] * image.width - width / 2, image.width - width))
    top = max(0.0, min(focus[1] * image.height - height / 2, image.height - height))
    box = (left, top, min(image.width, left + width), min(image.height, top + height))
    if rate_factor:
        return compressed(image, rate_factor, box).resize((size.width, size.height), Image.Resampling.LANCZOS)
    return image.resize((size.width, size.height), Image.Resampling.LANCZOS, box)


@contextmanager
def _open(path: Path, limits: Limits, loc: Loc) -> Iterator[Image.Image]:
    """Opens a picture and reads only its header. Converts decoding errors in the block to RequestError."""
    with path.open("rb") as file:
        try:
            with _open_header(file) as image:
                _check_pixels(image, limits, loc)
                yield image
        except (RequestError, MemoryError):
            raise
        except UnidentifiedImageError as error:
            raise _unidentified(path, loc) from error
        except Exception as error:  # decoders raise all kinds of errors on broken files
            raise RequestError.at(
                loc,
                "The picture is damaged or incomplete and cannot be read. Send it again, or re-export it.",
                "image_load_error",
            ) from error


def _open_header(file: BinaryIO) -> Image.Image:
    """Opens a picture without Pillow's own pixel limit, which is global and warns before it refuses.

    `_check_pixels` applies `Limits.pixels` before any pixels are read.
    """
    with _OPENING:
        default, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = default


def _check_pixels(image: Image.Image, limits: Limits, loc: Loc) -> None:
    allowed = min(limits.pixels, limits.picture_memory // BYTES_PER_PIXEL.get(image.format or "", OTHERS))
    if image.width * image.height > allowed:
        raise RequestError.at(
            loc,
            f"The picture has {image.width}x{image.height} pixels, more than the {allowed} that are allowed here in a "
            f"{image.format}. Scale it down.",
            "image_too_large",
            max_pixels=allowed,
        )


def _unidentified(path: Path, loc: Loc) -> RequestError:
    """Distinguishes a supported format with a broken header from an unsupported one: Pillow's error is the same."""
    with path.open("rb") as file:
        known = SIGNATURE.match(file.read(12))
    if known:
        return RequestError.at(
            loc,
            "The picture's header is damaged or incomplete. Send it again, or re-export it.",
            "image_load_error",
        )
    return RequestError.at(
        loc,
        "The file is not a picture in a supported format. Send PNG, JPEG, WebP, AVIF or GIF.",
        "unsupported_image_format",
        supported_formats=EXTENSIONS,
    )


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8.

    Does not call Image.getexif(), which decodes a whole PNG to look for EXIF data after the pixels.
    """
    exif = Image.Exif()
    with suppress(Exception):  # like viewers, ignore EXIF data that cannot be read
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        return orientation if orientation in UPRIGHT else 1
    return 1


def _rgb(image: Image.Image) -> Image.Image:
    """Converts to 8-bit sRGB, a strip at a time: the steps between would take several times the picture's memory."""
    if image.mode == "RGB" and not image.has_transparency_data and not image.info.get("icc_profile"):
        return image
    page = Image.new("RGB", image.size)
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(image.height, top + rows)))
        page.paste(_strip_to_rgb(strip), (0, top))
    return page


def _strip_to_rgb(image: Image.Image) -> Image.Image:
    """Converts to 8-bit sRGB.

    Transparent parts become white, as on a web page. Dropping the alpha channel would reveal the arbitrary colours that
    the file stores under them.
    """
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if not image.has_transparency_data:
        return _srgb(image)
    rgba = image.convert("RGBA")
    page = Image.new("RGB", rgba.size, "white")
    page.paste(_srgb(rgba), mask=rgba.getchannel("A"))
    return page


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Scales 16-bit greyscale to 8 bits, which Pillow's conversion does not. Pillow reads colour as 8-bit anyway."""
    grey = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")


def _srgb(image: Image.Image) -> Image.Image:
    """Converts to sRGB by the picture's colour profile, if it has a usable one."""
    profile = image.info.get("icc_profile")
    if profile:
        with suppress(ImageCms.PyCMSError, OSError):
            source = image if image.mode in ("L", "CMYK") else image.convert("RGB")
            converted = ImageCms.profileToProfile(source, io.BytesIO(profile), SRGB, outputMode="RGB")
            if converted:
                return converted
    return image.convert("RGB")


def _swap(size: Size) -> Size:
    return Size(size.height, size.width)
