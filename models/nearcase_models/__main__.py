"""Runs the command line: python -m nearcase_models."""

from __future__ import annotations

from nearcase_models.cli import main

main()
