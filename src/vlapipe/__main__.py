"""Runs the command as ``python -m vlapipe``; torchrun starts vlapipe this way too."""

from vlapipe.cli import main

if __name__ == "__main__":
    main()
