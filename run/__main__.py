"""`python -m run …` is `stokerd …`."""

from run.cli import main

main()
