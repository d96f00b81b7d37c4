"""`python -m bonsaigan` is `bonsaigan`."""

from bonsaigan.cli import main

main()
