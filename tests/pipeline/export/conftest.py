"""For ``import naive_frames``; importlib mode adds no path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
