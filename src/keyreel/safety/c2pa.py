"""Marks videos as made by AI: adds a signed C2PA manifest, beside the metadata of `keyreel.safety.provenance`.

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

from keyreel.errors import KeyreelError
from keyreel.fal.schema import SOURCE_FIELDS
from keyreel.media.atomic import replacing
from keyreel.net.certificates import SIGNER_LIFETIME, Certificate, make_authority
from keyreel.settings import Settings
from keyreel.version import __version__

AI_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
REQUEST = "keyreel.request"
"""Label of Keyreel's own assertion."""
GENERATOR = {"name": "Keyreel", "version": __version__}
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
CONTEXT = {
    "builder": {
        "thumbnail": {"enabled": False},
        # These assertions are made by the signer, not gathered from other sources.
        "created_assertion_labels": ["c2pa.actions", "c2pa.actions.v2", REQUEST],
    }
}


@dataclass(frozen=True, repr=False)
class Marker:
    """Signs manifests. certificate, key: PEM. algorithm: C2PA's name of the signature algorithm."""

    algorithm: str
    certificate: bytes
    key: bytes

    def mark(self, video: Path, metadata: Mapping[str, str]) -> None:
        """Adds a manifest to an MP4. metadata: from `keyreel.safety.provenance.metadata`.

        The manifest is a separate box before the index, so the file still starts to play while it loads.
        """
        with replacing(video) as marked, video.open("rb") as source, marked.open("w+b") as target:
            self.sign(manifest(metadata), "video/mp4", source, target)

    def sign(self, definition: Mapping[str, Any], kind: str, source: Any, target: Any) -> None:
        """Copies `source` to `target` with a signed manifest. Raises C2paError if the certificate is unfit for C2PA."""
        import c2pa

        info = c2pa.C2paSignerInfo(self.algorithm, self.certificate, self.key, None)
        with (
            c2pa.Signer.from_info(info) as signer,
            c2pa.Context.from_dict(CONTEXT) as context,
            c2pa.Builder(json.dumps(definition), context) as builder,
        ):
            builder.sign(signer, kind, source, target)


def open_marker(settings: Settings) -> Marker | None:
    """Returns the marker, or None if marking is switched off. Raises KeyreelError if videos cannot be marked."""
    if not settings.provenance:
        return None
    files = _configured_certificate(settings) or _development_certificate(settings.data_dir / "c2pa")
    marker = _read_marker(files)
    _check_signing(marker, files)
    return marker


def manifest(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Returns the manifest of a video. metadata: from `keyreel.safety.provenance.metadata`."""
    facts = json.loads(metadata["comment"])
    ingredients = list(_ingredients(facts))
    request = {"label": REQUEST, "data": {"sha256": request_hash(facts), "inputs": facts["inputs"]}}
    return {
        "claim_generator_info": [GENERATOR],
        "ingredients": ingredients,
        "assertions": [_created(ingredient["label"] for ingredient in ingredients), request],
    }


def _created(ingredients: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the assertion that a model created all of the video."""
    action = {"action": "c2pa.created", "digitalSourceType": AI_GENERATED, "softwareAgent": GENERATOR}
    parameters = {"parameters": {"ingredientIds": list(ingredients)}}
    return {"label": "c2pa.actions.v2", "data": {"actions": [action | parameters]}}


def request_hash(facts: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the request and its inputs' hashes as JSON: sorted keys, no spaces, UTF-8."""
    hashed = {"request": facts["request"], "inputs": facts["inputs"]}
    text = json.dumps(hashed, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _ingredients(facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the ingredients: the model, the LoRAs, the pictures and clips."""
    yield _ingredient("model", facts["model"]["name"], facts["model"]["sha256"]) | {
        "data_types": [{"type": "c2pa.types.model"}]
    }
    for place, sha256 in facts["inputs"].items():
        kind, index, *_ = place.split(".")
        yield _ingredient(place, facts["request"][kind][int(index)][SOURCE_FIELDS[kind]], sha256)


def _ingredient(label: str, title: str, sha256: str) -> dict[str, Any]:
    return {"label": label, "title": title, "instance_id": f"sha256:{sha256}", "relationship": "inputTo"}


def _configured_certificate(settings: Settings) -> Certificate | None:
    certificate, key = settings.c2pa_certificate, settings.c2pa_key
    if certificate and key:
        return Certificate(certificate, key)
    if certificate or key:
        raise KeyreelError("KEYREEL_C2PA_CERTIFICATE and KEYREEL_C2PA_KEY belong together: set both, or neither.")
    return None


def _development_certificate(folder: Path) -> Certificate:
    """Returns this installation's own certificate. Nobody trusts it, but it ties the manifest to the video."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as name:
            fresh = Path(name) / folder.name
            fresh.mkdir()
            make_authority(fresh, SIGNER_LIFETIME).issue_signer(fresh)
            try:
                fresh.rename(folder)
            except OSError:  # another process has made it meanwhile
                shutil.rmtree(fresh)
    return Certificate(folder / "signer.pem", folder / "signer.key")


def _read_marker(files: Certificate) -> Marker:
    try:
        chain, key = files.certificate.read_bytes(), files.key.read_bytes()
        signer = x509.load_pem_x509_certificate(chain)
        algorithm = _algorithm(key)
    except OSError as error:
        raise KeyreelError(f"Cannot read {error.filename}, needed to mark videos: {error.strerror}.") from None
    except (ValueError, TypeError) as error:
        raise KeyreelError(f"{files.certificate} and {files.key} cannot be used to mark videos: {error}") from None
    if signer.not_valid_after_utc < datetime.now(UTC):
        raise KeyreelError(f"Videos cannot be marked: the certificate {files.certificate} has expired. Renew it.")
    return Marker(algorithm, chain, key)


def _algorithm(pem: bytes) -> str:
    """Returns C2PA's name of a key's signature algorithm. Raises ValueError."""
    match load_pem_private_key(pem, None):
        case ec.EllipticCurvePrivateKey(curve=curve) if curve.name in CURVES:
            return CURVES[curve.name]
        case ed25519.Ed25519PrivateKey():
            return "ed25519"
        case rsa.RSAPrivateKey():
            return "ps256"
    raise ValueError("C2PA requires a key of type P-256, P-384, P-521, Ed25519 or RSA.")


def _check_signing(marker: Marker, files: Certificate) -> None:
    """Signs a small picture, so that a bad certificate fails at the start, not at the first video."""
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
            f"Videos cannot be marked with {files.certificate}: {error}. The certificate must allow signing (key usage "
            "digitalSignature, extended key usage emailProtection) and belong to the key in KEYREEL_C2PA_KEY."
        ) from None
