"""A portrait, and the settings of a checker that refuses it."""

import base64

from tests.safety.test_moderation import ASTRONAUT

PORTRAIT = f"data:image/jpeg;base64,{base64.b64encode(ASTRONAUT.read_bytes()).decode()}"
FACES = {"image_checker": "nudenet", "image_checker_labels": "FACE_FEMALE=0.4"}
