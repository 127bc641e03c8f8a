"""The command lpips-score, also as `python -m lpips_runtime`."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command and return its exit code; an interrupt while it is still being imported is one too."""
    try:
        from .stopping import unhidden_stops

        with unhidden_stops():
            from .cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
