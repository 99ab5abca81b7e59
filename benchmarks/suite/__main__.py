"""Speed beside what people use, as ratios within one run: JSON and a page.

    python benchmarks/suite run                       every group, some eight minutes of one thread
    python benchmarks/suite run --only inverse        the groups whose name contains that
    python benchmarks/suite compare OLD.json NEW.json

`make bench` and `make bench-compare OLD=… NEW=…` do the same.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command, one thread whatever the caller's environment says."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    sys.path.insert(1, str(Path(__file__).parents[1]))
    from command import main as command

    command(prog_name="python benchmarks/suite")


if __name__ == "__main__":
    main()
