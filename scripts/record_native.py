"""Record tests/vectors/native_1.json: digests of what the kernels compute for small models.

`python -m scripts.record_native`, in the root of the checkout, and only with a new name of the
mode: other nodes compute what the old name says, bit for bit. Tests never record.
"""

import json
import tempfile
from pathlib import Path

from node.worker.engine.kernels.build import build
from node.worker.engine.kernels.library import Kernels
from tests.node.worker.kernels.test_kernels_equality import VECTORS, golden


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        kernels = Kernels(build(Path(folder)))
        VECTORS.write_text(json.dumps(golden(kernels), indent=1) + "\n")


if __name__ == "__main__":
    main()
