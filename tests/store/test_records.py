import re

from keyreel.settings import Settings
from keyreel.store.records import WorkerNameTakenError


def test_the_setting_that_a_taken_worker_name_points_to_exists() -> None:
    (name,) = re.findall(r"KEYREEL_(\w+)", str(WorkerNameTakenError("gpu-1")))
    assert name.lower() in Settings.model_fields
