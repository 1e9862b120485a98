"""Names of the files that a training run makes in its own folder. Imports nothing, so readers need no torch."""

from __future__ import annotations

__all__ = ["CONFIG_FILE", "EVAL_FOLDER", "METRICS_FILE", "RESULT_FILE", "VALIDATION_FILE"]

CONFIG_FILE = "config.json"  # the resolved options
METRICS_FILE = "metrics.jsonl"  # a line for each logged step
VALIDATION_FILE = "validation.json"  # the figures of the newest validation
RESULT_FILE = "result.json"  # what the newest process of the run found out about its speed
EVAL_FOLDER = "eval"  # what ``vlapipe eval`` wrote
