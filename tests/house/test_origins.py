"""The rules of test_imports.py fail for codecs, weights and file names behind aliases and re-exports."""

from __future__ import annotations

import pytest

from tests.helpers.origins import Project
from tests.house.test_imports import codec_uses, named_results, weight_reads

OWN = {
    "utils.media.audio": "import av\nfrom av import open as open_file\ndef open_media(p) -> av.VideoFrame: ...",
    "utils.files.arrays": "from utils.media.audio import av as codec\nimport torch\nload = torch.load",
    "utils.results.store": 'TRACK_NAME, BOXES_NAME = "track.json", "boxes.npy"\nADVICE = "again"',
}
DECODING = {
    "plain": "import av",
    "in a function": "def f():\n    import av.container",
    "another name": "import av as media\nmedia.open('x')",
    "handed on": "from utils.media.audio import av",
    "handed on as another name": "from utils.media.audio import open_file as o\no('x')",
    "handed on twice": "from utils.files import arrays\narrays.codec.open('x')",
    "a container": "from utils.media.audio import open_media",
    "looked up": "import cv2\nreader = getattr(cv2, 'VideoCapture')",
    "loaded by name": "from importlib import import_module\nimport_module('soundfile')",
    "built in": "__import__('av')",
    "a part of a library": "import librosa\nlibrosa.load('x.wav')",
}
OPENING = {
    "plain": "import torch\ntorch.load('x')",
    "another name": "import torch as t\nread = t.load\nread('x')",
    "a default": "import torch\ndef f(read=torch.load): ...",
    "handed on": "from utils.files.arrays import load",
    "from a module": "import utils.files.arrays as a\na.load('x')",
    "a function's name": "from safetensors.torch import load_file as f",
    "a library's class": "from diffusers import AutoencoderKL\nAutoencoderKL.from_pretrained('x')",
    "pickles": "from pickle import Unpickler",
    "numpy's pickles": "import numpy as np\nnp.load('x', allow_pickle=True)",
    "numpy's pickles, perhaps": "import numpy as np\ndef f(p): np.load('x', allow_pickle=p)",
}
HARMLESS = {
    "for the checker": "if TYPE_CHECKING:\n    import av\ndef f(x: av.VideoFrame): ...",
    "parts of libraries": "from librosa.filters import mel\nfrom pickle import UnpicklingError\nimport cv2\ncv2.resize",
    "arrays": "import numpy as np\nnp.load('x', allow_pickle=False)\nnp.load('x')",
    "own classes": "from models.net import Net\nNet.from_pretrained('x')",
    "a word": "av = 1\ntext = 'torch.load'\nload = dict.get",
}
NAMES = {
    "in words": ("name = 'track.json'", {"track.json"}),
    "imported": ("from utils.results.store import BOXES_NAME as b", {"boxes.npy"}),
    "from a module": ("from utils.results import store\nprint(store.TRACK_NAME)", {"track.json"}),
    "something else": ("from utils.results.store import ADVICE", set()),
}


def project(text: str) -> Project:
    return Project({**OWN, "models.net": "class Net: ...", "models.mine": text})


@pytest.mark.parametrize("text", DECODING.values(), ids=DECODING)
def test_codecs_are_found(text):
    assert codec_uses(project(text), "models.mine")


@pytest.mark.parametrize("text", OPENING.values(), ids=OPENING)
def test_readers_of_weights_are_found(text):
    assert weight_reads(project(text), "models.mine")


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_nothing_else_is_found(text):
    assert codec_uses(project(text), "models.mine") == weight_reads(project(text), "models.mine") == []


@pytest.mark.parametrize(("text", "names"), NAMES.values(), ids=NAMES)
def test_names_of_intermediate_files_are_found(text, names):
    assert named_results(project(text), "models.mine") == names


def test_a_circle_of_names_ends():
    circle = Project({"utils.a": "from utils.b import x", "utils.b": "from utils.a import x\nfrom utils.c import y"})
    assert "utils.c.y" in {use.origin for use in circle.uses("utils.b")}
