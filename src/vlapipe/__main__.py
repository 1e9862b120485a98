"""``python -m vlapipe``, which is also what torchrun starts."""

from vlapipe.cli import main

if __name__ == "__main__":
    main()
