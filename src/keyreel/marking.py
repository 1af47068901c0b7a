"""Videos marked as made by AI: a signed C2PA manifest in the file, beside the metadata of `keyreel.provenance`.

https://spec.c2pa.org/specifications/specifications/2.2/specs/C2PA_Specification.html
"""

import hashlib
import io
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from PIL import Image

from keyreel import __version__
from keyreel.certificates import SIGNER_LIFETIME, Certificate, make_authority
from keyreel.errors import KeyreelError
from keyreel.media.atomic import replacing
from keyreel.settings import Settings

AI_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
REQUEST = "keyreel.request"
"""Label of our own assertion."""
GENERATOR = {"name": "Keyreel", "version": __version__}
SOURCES = {"images": "image_url", "videos": "video_url", "loras": "path"}
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
CONTEXT = {
    "builder": {
        "thumbnail": {"enabled": False},
        # Said by us, not gathered from somebody else.
        "created_assertion_labels": ["c2pa.actions", "c2pa.actions.v2", REQUEST],
    }
}


@dataclass(frozen=True, repr=False)
class Marker:
    """Signs with one certificate. certificate, key: PEM. algorithm: C2PA's name of it."""

    algorithm: str
    certificate: bytes
    key: bytes

    def mark(self, video: Path, metadata: Mapping[str, str]) -> None:
        """Puts the manifest into an MP4. metadata: what `keyreel.provenance.metadata` said of it.

        It comes in a box of its own before the index, so the file still starts to play while it loads.
        """
        with replacing(video) as marked, video.open("rb") as source, marked.open("w+b") as target:
            self.sign(manifest(metadata), "video/mp4", source, target)

    def sign(self, definition: Mapping[str, Any], kind: str, source: Any, target: Any) -> None:
        """The library reads the result back: a certificate that is unfit for C2PA raises C2paError."""
        import c2pa

        info = c2pa.C2paSignerInfo(self.algorithm, self.certificate, self.key, None)
        with (
            c2pa.Signer.from_info(info) as signer,
            c2pa.Context.from_dict(CONTEXT) as context,
            c2pa.Builder(json.dumps(definition), context) as builder,
        ):
            builder.sign(signer, kind, source, target)


def open_marker(settings: Settings) -> Marker | None:
    """None when marking is switched off. Raises KeyreelError when videos cannot be marked with what is configured."""
    if not settings.provenance:
        return None
    files = _configured(settings) or _development(settings.data_dir / "c2pa")
    marker = _read(files)
    _try(marker, files)
    return marker


def manifest(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The manifest of a video of which so much is known."""
    facts = json.loads(metadata["comment"])
    ingredients = list(_ingredients(facts))
    request = {"label": REQUEST, "data": {"sha256": request_hash(facts), "inputs": facts["inputs"]}}
    return {
        "claim_generator_info": [GENERATOR],
        "ingredients": ingredients,
        "assertions": [_created(ingredient["label"] for ingredient in ingredients), request],
    }


def _created(ingredients: Iterable[str] = ()) -> dict[str, Any]:
    """The assertion that all of it is made by a model."""
    action = {"action": "c2pa.created", "digitalSourceType": AI_GENERATED, "softwareAgent": GENERATOR}
    parameters = {"parameters": {"ingredientIds": list(ingredients)}}
    return {"label": "c2pa.actions.v2", "data": {"actions": [action | parameters]}}


def request_hash(facts: Mapping[str, Any]) -> str:
    """SHA-256 of the request and its inputs' hashes as JSON: sorted keys, no spaces, UTF-8."""
    known = {"request": facts["request"], "inputs": facts["inputs"]}
    text = json.dumps(known, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _ingredients(facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What went in: the model, the LoRAs, the pictures and clips."""
    yield _ingredient("model", facts["model"]["name"], facts["model"]["sha256"]) | {
        "data_types": [{"type": "c2pa.types.model"}]
    }
    for place, sha256 in facts["inputs"].items():
        kind, index, *_ = place.split(".")
        yield _ingredient(place, facts["request"][kind][int(index)][SOURCES[kind]], sha256)


def _ingredient(label: str, title: str, sha256: str) -> dict[str, Any]:
    return {"label": label, "title": title, "instance_id": f"sha256:{sha256}", "relationship": "inputTo"}


def _configured(settings: Settings) -> Certificate | None:
    certificate, key = settings.c2pa_certificate, settings.c2pa_key
    if certificate and key:
        return Certificate(certificate, key)
    if certificate or key:
        raise KeyreelError("KEYREEL_C2PA_CERTIFICATE and KEYREEL_C2PA_KEY belong together: set both, or neither.")
    return None


def _development(folder: Path) -> Certificate:
    """A certificate of this installation's own. Nobody trusts it, but it holds what is said together with the video."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as name:
            fresh = Path(name) / folder.name
            fresh.mkdir()
            make_authority(fresh, SIGNER_LIFETIME).issue_signer(fresh)
            try:
                fresh.rename(folder)
            except OSError:  # another process was faster
                shutil.rmtree(fresh)
    return Certificate(folder / "signer.pem", folder / "signer.key")


def _read(files: Certificate) -> Marker:
    try:
        chain, key = files.certificate.read_bytes(), files.key.read_bytes()
        signer = x509.load_pem_x509_certificate(chain)
        algorithm = _algorithm(key)
    except OSError as error:
        raise KeyreelError(f"Cannot read {error.filename}, to mark videos with: {error.strerror}.") from None
    except (ValueError, TypeError) as error:
        raise KeyreelError(f"{files.certificate} and {files.key} are no pair to sign with: {error}") from None
    if signer.not_valid_after_utc < datetime.now(UTC):
        raise KeyreelError(f"The certificate {files.certificate} has expired, and videos cannot be marked. Renew it.")
    return Marker(algorithm, chain, key)


def _algorithm(pem: bytes) -> str:
    """C2PA's name for what a key signs with. Raises ValueError."""
    match load_pem_private_key(pem, None):
        case ec.EllipticCurvePrivateKey(curve=curve) if curve.name in CURVES:
            return CURVES[curve.name]
        case ed25519.Ed25519PrivateKey():
            return "ed25519"
        case rsa.RSAPrivateKey():
            return "ps256"
    raise ValueError("C2PA takes keys of P-256, P-384, P-521, Ed25519 and RSA.")


def _try(marker: Marker, files: Certificate) -> None:
    """Now, and not when the first video is there."""
    try:
        import c2pa
    except ImportError as error:
        raise KeyreelError(
            f"Videos cannot be marked ({error.name} is missing): pip install 'keyreel[engine]', "
            "or switch it off with KEYREEL_PROVENANCE=false."
        ) from None
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    try:
        marker.sign(
            {"claim_generator_info": [GENERATOR], "assertions": [_created()]}, "image/png", picture, io.BytesIO()
        )
    except c2pa.C2paError as error:
        raise KeyreelError(
            f"Videos cannot be marked with {files.certificate}: {error}. It must be for signing (key usage "
            "digitalSignature, extended key usage emailProtection), its key the one in KEYREEL_C2PA_KEY."
        ) from None
