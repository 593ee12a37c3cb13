"""The version that results and their metadata carry; pyproject.toml states the same."""

VERSION = "0.1.0"
