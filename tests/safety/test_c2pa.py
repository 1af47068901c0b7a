import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import keyreel
from keyreel.engine.models import Model
from keyreel.errors import KeyreelError
from keyreel.media.mp4 import Mp4Writer, read_metadata
from keyreel.net.certificates import make_authority
from keyreel.safety.c2pa import AI_GENERATED, Marker, open_marker, request_hash
from keyreel.settings import Settings
from keyreel.video.canvas import Size

FACTS: dict[str, Any] = {
    "generator": "Keyreel",
    "request": {
        "prompt": "ein roter Kreis, größer",
        "seed": 3,
        "images": [{"image_url": "https://example.com/first.png"}],
        "loras": [{"path": "neon.safetensors"}],
    },
    "inputs": {"images.0": "a" * 64, "loras.0.path": "b" * 64},
    "model": {"name": "demo", "sha256": "c" * 64},
}
METADATA = {"comment": json.dumps(FACTS, ensure_ascii=False)}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", provenance=True)


@pytest.fixture
def marker(settings: Settings) -> Marker:
    return opened(settings)


def opened(settings: Settings) -> Marker:
    marker = open_marker(settings)
    assert marker
    return marker


def write_video(path: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (9, 64, 96, 3), np.uint8)
    with Mp4Writer(path, Size(96, 64), 25, METADATA) as writer:
        writer.write(frames)
    return path


def read(video: Path, anchors: Path | None = None) -> tuple[str, dict[str, Any]]:
    """Returns c2pa's verdict and the manifest. anchors: a file with the certificates to trust."""
    trust = {"trust": {"trust_anchors": anchors.read_text()}} if anchors else {}
    context = c2pa.Context.from_dict(trust | {"verify": {"verify_trust": True}})
    with video.open("rb") as file, context, c2pa.Reader("video/mp4", file, context=context) as reader:
        return reader.get_validation_state(), reader.get_active_manifest()


def boxes(content: bytes) -> dict[bytes, bytes]:
    """Returns the top-level boxes of an MP4 file by type."""
    found, start = {}, 0
    while start < len(content):
        size = int.from_bytes(content[start : start + 4], "big")
        found[content[start + 4 : start + 8]] = content[start : start + size]
        start += size
    return found


def test_manifest_says_how_the_video_was_made(marker: Marker, settings: Settings, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4")
    marker.mark(video, METADATA)
    state, manifest = read(video, settings.data_dir / "c2pa" / "authority.pem")
    assert state == "Trusted"
    assertions = {assertion["label"]: assertion["data"] for assertion in manifest["assertions"]}
    (action,) = assertions["c2pa.actions.v2"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", AI_GENERATED)
    assert len(action["parameters"]["ingredients"]) == 3
    facts = json.loads(read_metadata(video)["comment"])
    assert assertions["keyreel.request"] == {"sha256": request_hash(facts), "inputs": FACTS["inputs"]}
    assert [(item["title"], item["instance_id"], item["relationship"]) for item in manifest["ingredients"]] == [
        ("demo", f"sha256:{'c' * 64}", "inputTo"),
        ("https://example.com/first.png", f"sha256:{'a' * 64}", "inputTo"),
        ("neon.safetensors", f"sha256:{'b' * 64}", "inputTo"),
    ]


def test_request_hash_is_that_of_sorted_compact_json() -> None:
    text = '{"inputs":{"images.0":"aa"},"request":{"prompt":"größer","seed":3}}'  # sorted, no spaces, UTF-8
    facts = {"request": {"seed": 3, "prompt": "größer"}, "inputs": {"images.0": "aa"}, "model": {"name": "other"}}
    digest = hashes.Hash(hashes.SHA256())
    digest.update(text.encode())
    assert request_hash(facts) == digest.finalize().hex()


def test_manifest_is_valid_but_not_trusted_without_its_anchor(marker: Marker, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4")
    marker.mark(video, METADATA)
    assert read(video)[0] == "Valid"


def test_marking_changes_neither_frames_nor_metadata(marker: Marker, tmp_path: Path) -> None:
    """The index also stays before the frames."""
    plain, marked = write_video(tmp_path / "plain.mp4"), write_video(tmp_path / "marked.mp4")
    marker.mark(marked, METADATA)
    assert read_metadata(marked) == read_metadata(plain)
    assert list(boxes(marked.read_bytes())) == [b"ftyp", b"uuid", b"moov", b"free", b"mdat"]
    assert boxes(marked.read_bytes())[b"mdat"] == boxes(plain.read_bytes())[b"mdat"]
    assert all(np.array_equal(*pair) for pair in zip(decoded(plain), decoded(marked), strict=True))
    assert {path.name for path in tmp_path.glob("*.part")} == set()


def decoded(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_marks_of_equal_videos_differ_in_their_box_only(marker: Marker, tmp_path: Path) -> None:
    files = [write_video(tmp_path / f"{index}.mp4") for index in (0, 1)]
    assert files[0].read_bytes() == files[1].read_bytes()
    for file in files:
        marker.mark(file, METADATA)
    one, two = (boxes(file.read_bytes()) for file in files)
    assert {name for name in one if one[name] != two[name]} == {b"uuid"}
    assert len(one[b"uuid"]) == len(two[b"uuid"])


def test_changed_video_is_invalid(marker: Marker, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4")
    marker.mark(video, METADATA)
    content = bytearray(video.read_bytes())
    content[-20] ^= 1
    video.write_bytes(content)
    assert read(video)[0] == "Invalid"


def test_certificate_is_made_once_and_its_key_is_private(settings: Settings) -> None:
    first, second = opened(settings), opened(settings)
    assert (first.certificate, first.key) == (second.certificate, second.key)
    folder = settings.data_dir / "c2pa"
    assert stat.S_IMODE((folder / "signer.key").stat().st_mode) == 0o600
    assert {path.name for path in settings.data_dir.iterdir()} == {"c2pa"}
    assert first.key.decode() not in repr(first)


def test_marking_can_be_switched_off(tmp_path: Path) -> None:
    assert open_marker(Settings(data_dir=tmp_path / "data", provenance=False)) is None
    assert not (tmp_path / "data").exists()


PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
KEYS: dict[str, Callable[[], PrivateKey]] = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


def write_operator_certificate(folder: Path, key: PrivateKey, **changes: Any) -> Settings:
    """Writes an operator's certificate, issued by an authority, and its key. Returns settings that name both."""
    options: dict[str, Any] = {"lifetime": timedelta(days=30), "usage": ExtendedKeyUsageOID.EMAIL_PROTECTION} | changes
    authority = make_authority(folder)
    names = [(NameOID.ORGANIZATION_NAME, "A studio"), (NameOID.COMMON_NAME, "signer")]
    now = datetime.now(UTC) - timedelta(days=60)
    signed = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(*name) for name in names]))
        .issuer_name(authority.signed.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=60) + options["lifetime"])
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(signature_only(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([options["usage"]]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    certificate, secret = folder / "operator.pem", folder / "operator.key"
    certificate.write_bytes(signed.public_bytes(pem) + authority.certificate.read_bytes())
    secret.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return Settings(provenance=True, data_dir=folder / "data", c2pa_certificate=certificate, c2pa_key=secret)


def signature_only() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@pytest.mark.parametrize("algorithm", KEYS)
def test_videos_are_signed_with_the_operators_certificate(algorithm: str, tmp_path: Path) -> None:
    settings = write_operator_certificate(tmp_path, KEYS[algorithm]())
    video = write_video(tmp_path / "video.mp4")
    marker = opened(settings)
    marker.mark(video, METADATA)
    state, manifest = read(video, tmp_path / "authority.pem")
    assert (marker.algorithm, state) == (algorithm, "Trusted")
    assert manifest["signature_info"]["issuer"] == "A studio"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lifetime": timedelta(days=-1)}, "expired"),
        ({"usage": ExtendedKeyUsageOID.SERVER_AUTH}, "emailProtection"),
    ],
)
def test_unsuitable_certificate_is_refused_at_the_start(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    settings = write_operator_certificate(tmp_path, KEYS["es256"](), **changes)
    with pytest.raises(KeyreelError, match=reason):
        open_marker(settings)


def test_key_of_another_certificate_is_refused_at_the_start(tmp_path: Path) -> None:
    settings = write_operator_certificate(tmp_path, KEYS["es256"]())
    other = tmp_path / "other"
    other.mkdir()
    stranger = write_operator_certificate(other, KEYS["es256"]())
    with pytest.raises(KeyreelError, match="cannot be marked"):
        open_marker(settings.model_copy(update={"c2pa_key": stranger.c2pa_key}))


@pytest.mark.parametrize("field", ["c2pa_certificate", "c2pa_key"])
def test_incomplete_pairs_and_unusable_files_are_refused(field: str, tmp_path: Path) -> None:
    settings = write_operator_certificate(tmp_path, KEYS["es256"]())
    with pytest.raises(KeyreelError, match="belong together"):
        open_marker(settings.model_copy(update={field: None}))
    with pytest.raises(KeyreelError, match=r"missing\.pem"):
        open_marker(settings.model_copy(update={field: tmp_path / "missing.pem"}))
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(KeyreelError, match="cannot be used to mark"):
        open_marker(settings.model_copy(update={field: tmp_path / "text.pem"}))


@pytest.mark.slow
def test_generated_videos_are_marked(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYREEL_PROVENANCE", "true")
    monkeypatch.setenv("KEYREEL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("KEYREEL_CACHE_DIR", str(tmp_path / "cache"))
    video = tmp_path / "video.mp4"
    request = {"prompt": "a red circle", "resolution": "480p", "aspect_ratio": "1:1", "number_of_frames": 9}
    output = keyreel.generate(request, number_of_steps=1, seed=3, model=model, out=video)
    state, manifest = read(video)
    assert state == "Valid"
    assert manifest["ingredients"][0]["instance_id"] == f"sha256:{model.fingerprint}"
    assert output.video.file_size == video.stat().st_size
    assert json.loads(read_metadata(video)["comment"])["request"]["seed"] == 3
    assert not list(tmp_path.glob(".*"))


def test_file_that_cannot_be_signed_is_unchanged(marker: Marker, tmp_path: Path) -> None:
    broken = tmp_path / "video.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(c2pa.C2paError):
        marker.mark(broken, METADATA)
    assert broken.read_bytes() == b"no video"
    assert not list(tmp_path.glob("*.part"))
