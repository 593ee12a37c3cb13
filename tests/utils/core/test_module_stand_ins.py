from __future__ import annotations

import subprocess
import sys
from threading import Event, Thread
from types import ModuleType

import pytest

from utils.core.module_stand_ins import in_place_of

CLASSES = """
import sys
from models.layers.diffusers_classes import diffusers_class
from models.tracking.mediapipe import mediapipe_solution
diffusers_class("AutoencoderKL"), diffusers_class("UNet2DConditionModel"), mediapipe_solution("face_mesh").FaceMesh
away = ["transformers", "torch._dynamo", "scipy.stats", "matplotlib"]
print([name for name in away if name in sys.modules])
import matplotlib.pyplot, scipy.stats, torch._dynamo, transformers
print(hasattr(torch._dynamo, "explain"), hasattr(scipy.stats, "norm"), hasattr(matplotlib.pyplot, "plot"))
"""
BESIDE = """
from concurrent.futures import ThreadPoolExecutor
from models.layers.diffusers_classes import diffusers_class
from models.tracking.mediapipe import SOLUTIONS, mediapipe_solution
with ThreadPoolExecutor(2) as pool:
    loads = [pool.submit(mediapipe_solution, name) for name in SOLUTIONS]
    loads.append(pool.submit(diffusers_class, "AutoencoderKL"))
    for load in loads:
        load.result()
"""


def test_what_is_loaded_stays_and_what_is_not_can_be_loaded_afterwards():
    stand_ins = {"sys": ModuleType("sys"), "this_is_not_there": ModuleType("stand-in"), "colorsys": None}
    sys.modules.pop("colorsys", None)
    with in_place_of(stand_ins):
        import this_is_not_there

        assert this_is_not_there is stand_ins["this_is_not_there"]
        assert sys.modules["sys"] is sys
        with pytest.raises(ImportError):
            import colorsys
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
    with pytest.raises(ImportError):
        import this_is_not_there


def test_slow_libraries_stay_away_and_can_still_be_loaded():
    found = subprocess.run([sys.executable, "-c", CLASSES], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-2:] == ["[]", "True True True"]


def test_no_thread_finds_what_another_has_put_there():
    name, seen, entered = "this_is_not_there", [], Event()

    def look():
        entered.set()
        with in_place_of({"nor_is_this": None}):
            seen.append(name in sys.modules)

    other = Thread(target=look)
    with in_place_of({name: ModuleType(name)}):
        other.start()
        assert entered.wait(10)
        other.join(0.2)
    other.join(10)
    assert seen == [False]


def test_libraries_load_beside_each_other():
    subprocess.run([sys.executable, "-c", BESIDE], check=True)
