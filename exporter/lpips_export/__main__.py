"""The command lpips-export, also as `python -m lpips_export`."""

import sys
from typing import Any

__all__ = ["main"]


def main() -> Any:
    """Run the command, which exits by itself; an interrupt while it is still being imported is an exit too."""
    try:
        from .cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
