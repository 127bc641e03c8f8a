"""The one version of lpips-runtime and lpips-export."""

__version__ = "0.1.0"
