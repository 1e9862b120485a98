"""Trains as its arguments say, for tests that need processes of their own; prints the result as JSON on stdout."""

from __future__ import annotations

import json
import sys

from vlapipe.schemas.errors import VlapipeError
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train

if __name__ == "__main__":
    try:
        result = train(TrainConfig.from_sources(None, json.loads(sys.argv[1])))
    except VlapipeError as error:
        sys.stderr.write(f"vlapipe: {error}\n")
        sys.exit(error.exit_code)
    unwanted = {"dask", "distributed"} & set(sys.modules)
    if result.rank == 0:
        sys.stdout.write(json.dumps(vars(result) | {"unwanted": sorted(unwanted)}, default=str) + "\n")
