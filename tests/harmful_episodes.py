"""Episodes that harm the process that reads them: it ends, hangs, or takes all memory.

The product has no hook for that. A module on the path of the workers, which Python imports at its start, wraps the
function that reads an episode.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["CAUSES", "make_hook"]

CAUSES = {"crashes": "episode.crashes", "hangs": "episode.hangs", "eats": "episode.memory"}
_HOOK = """
import importlib.abc, importlib.util, os, sys, time

HARM = @HARM@

class Wrap(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "vlapipe.pipeline.build.build":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            read = module.read_episode

            def read_harmful(root, raw, *rest):
                how = HARM.get(raw.id)
                if how == "crashes":
                    os._exit(3)
                if how == "hangs":
                    time.sleep(1e6)
                kept = []
                while how == "eats":
                    kept.append(b"x" * (32 << 20))
                    time.sleep(0.005)
                return read(root, raw, *rest)

            module.read_episode = read_harmful

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Wrap())
"""


def make_hook(folder: Path, harm: dict[str, str]) -> Path:
    """Make a folder for ``PYTHONPATH``. ``harm`` says what each harmful episode does: a key of ``CAUSES``."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_HOOK.replace("@HARM@", repr(harm)))
    return folder
