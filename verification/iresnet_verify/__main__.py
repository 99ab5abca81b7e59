"""The command `iresnet-verify`. Without the packages of its extra it prints how to install them and exits with 2."""

from __future__ import annotations

import sys

EXTRA = ("click", "cloudpickle", "jinja2", "pebble", "rich")


def main() -> None:
    """Run the command line."""
    try:
        from iresnet_verify.cli.commands import run
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRA:
            raise
        print(f'iresnet-verify needs {package}; try: pip install "iresnet-ref[verify]"', file=sys.stderr)
        sys.exit(2)
    sys.exit(run())


if __name__ == "__main__":
    main()
