"""``python -m gpurerank.cli``."""

from gpurerank.cli import main

main()
