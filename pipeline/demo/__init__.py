"""Simulates a lab that writes raw demonstrations, good ones and broken ones, for a first try and for tests."""

from __future__ import annotations

from vlapipe.pipeline.demo.dataset import DemoReport, make_demo
from vlapipe.pipeline.demo.defects import PlantedDefect

__all__ = ["DemoReport", "PlantedDefect", "make_demo"]
