"""The release, stated once: the build, `--version` and WELCOME read it here."""

__version__ = "0.1.0"
