"""Pictures from files that nobody vouches for, as pixels of the size that is asked for."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from keyreel.canvas import Size
from keyreel.errors import Loc, RequestError
from keyreel.media.limits import Limits

# Limits.pixels is checked on every picture before its pixels are read. Pillow's own limit would be a second
# one, of another size, that warns before it refuses.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF")
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
"""What turns a picture upright, by its EXIF orientation."""
SRGB = ImageCms.createProfile("sRGB")


def image_size(path: Path, limits: Limits, loc: Loc) -> Size:
    """The picture's size as displayed, its EXIF orientation applied. Reads the header only."""
    with _open(path, limits, loc) as image:
        size = Size(*image.size)
        return _swap(size) if _orientation(image) >= 5 else size


def read_image(path: Path, size: Size, limits: Limits, loc: Loc) -> NDArray[np.uint8]:
    """The picture (of an animation, the first) as displayed, cropped centrally and scaled.

    Returns (height, width, 3), sRGB.
    """
    with _open(path, limits, loc) as image:
        orientation = _orientation(image)
        fitted = cover(_rgb(image), _swap(size) if orientation >= 5 else size)
        if orientation in UPRIGHT:
            fitted = fitted.transpose(UPRIGHT[orientation])
        return np.array(fitted)


def cover(image: Image.Image, size: Size, pixel_aspect: float = 1.0) -> Image.Image:
    """Crops centrally to the shape of `size`, then scales: nothing is stretched, nothing padded.

    `pixel_aspect` is the width of one of the image's pixels over its height; some clips have such.
    """
    scale = max(size.width / (image.width * pixel_aspect), size.height / image.height)
    width = min(image.width, size.width / (scale * pixel_aspect))
    height = min(image.height, size.height / scale)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (left, top, min(image.width, left + width), min(image.height, top + height))
    return image.resize((size.width, size.height), Image.Resampling.LANCZOS, box)


@contextmanager
def _open(path: Path, limits: Limits, loc: Loc) -> Iterator[Image.Image]:
    """The picture with only its header read. Whatever the block finds wrong becomes a RequestError."""
    with path.open("rb") as file:
        try:
            with Image.open(file, formats=FORMATS) as image:
                _check_pixels(image, limits, loc)
                yield image
        except (RequestError, MemoryError):
            raise
        except UnidentifiedImageError as error:
            raise _unidentified(path, loc) from error
        except Exception as error:  # decoders fed with broken files raise whatever they stumble over
            raise RequestError.at(
                loc,
                "The picture is damaged or incomplete and cannot be read. Send it again, or save it anew.",
                "image_load_error",
            ) from error


def _check_pixels(image: Image.Image, limits: Limits, loc: Loc) -> None:
    if image.width * image.height > limits.pixels:
        raise RequestError.at(
            loc,
            f"The picture has {image.width}x{image.height} pixels, more than the {limits.pixels} allowed "
            "here. Scale it down.",
            "image_too_large",
            max_pixels=limits.pixels,
        )


def _unidentified(path: Path, loc: Loc) -> RequestError:
    """Pillow says the same of a foreign format as of one of ours that breaks off in its header."""
    with path.open("rb") as file:
        known = SIGNATURE.match(file.read(12))
    if known:
        return RequestError.at(
            loc,
            "The picture's header is damaged or incomplete. Send it again, or save it anew.",
            "image_load_error",
        )
    return RequestError.at(
        loc,
        "The file is not a picture in a format that is read here. Send PNG, JPEG, WebP, AVIF or GIF.",
        "unsupported_image_format",
        supported_formats=EXTENSIONS,
    )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8.

    Image.getexif() would decode the whole of a PNG, to look for EXIF behind the pixels.
    """
    exif = Image.Exif()
    with suppress(Exception):  # viewers show a picture upright, too, whose EXIF they cannot read
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        return orientation if orientation in UPRIGHT else 1
    return 1


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit sRGB.

    Transparent parts become white: that is what a page shows behind a picture, whereas dropping the alpha
    channel would bring out whatever colours the file happens to keep under it.
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
    """Only greyscale arrives with 16 bits: Pillow reads colour as 8. Its own conversion would not scale."""
    grey = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")


def _srgb(image: Image.Image) -> Image.Image:
    """Through the picture's colour profile, if it has one that can be used."""
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
