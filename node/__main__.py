"""`ayni`, also as `python -m node`."""

from node.cli.main import ayni


def main() -> None:
    """Run one command and exit with its status: 0 done, 1 failed, 2 misuse."""
    ayni(prog_name="ayni")


if __name__ == "__main__":
    main()
