"""The official weights tree with small random networks, made once per test session."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from scripts import make_filled_weights

ROOT = Path(__file__).resolve().parents[2]
SHARED_FOLDERS = ("models", "config", "scripts")
_MADE: set[Path] = set()


def tiny_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete folder ``pretrained_models``, not to be changed; see copy_tree."""
    directory = tmp_path_factory.getbasetemp() / "official" / "pretrained_models"
    if directory not in _MADE:
        make_filled_weights.main([str(directory), "--tiny", "--with", "recon", "parsing"])
        _MADE.add(directory)
    return directory


def copy_tree(tree: Path, folder: Path) -> Path:
    """A copy to damage, <folder>/pretrained_models. Its files are hard links: replace them, never write into them."""
    return Path(shutil.copytree(tree, folder / tree.name, copy_function=os.link))


def project_folder(folder: Path, tree: Path) -> Path:
    """A checkout of this project whose ./pretrained_models is ``tree``."""
    folder.mkdir(parents=True)
    for script in ROOT.glob("*.py"):
        shutil.copy(script, folder)
    # A copy, because the code searches for weights beside its own folder.
    shutil.copytree(ROOT / "utils", folder / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SHARED_FOLDERS:
        (folder / name).symlink_to(ROOT / name)
    (folder / "pretrained_models").symlink_to(tree)
    return folder
