"""Writes the Python stubs of protos/ below a folder: the one way to make them, for people and for the drift test.

Run `make stubs` (or `python protos/generate.py server`) after a change of a .proto file.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parent
PLUGINS = ("mypy", "mypy_grpc")  # found beside this Python, so that no environment has to be activated


def generate(out: Path) -> list[Path]:
    """Returns the files it wrote below `out`."""
    sources = sorted(str(path) for path in (PROTOS / "nearcase" / "v1").glob("*.proto"))
    flags = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", *PLUGINS)]
    flags += [f"--plugin=protoc-gen-{name}={Path(sys.executable).with_name(f'protoc-gen-{name}')}" for name in PLUGINS]
    include = str(files("grpc_tools") / "_proto")
    if protoc.main(["protoc", f"-I{PROTOS}", f"-I{include}", *flags, *sources]) != 0:
        raise SystemExit("protoc failed")
    return sorted((out / "nearcase" / "v1").glob("*_pb2*.py*"))


if __name__ == "__main__":
    for path in generate(Path(sys.argv[1])):
        print(path)
