"""What a library needs on a Qdrant server or cluster, by arithmetic: nothing is measured here.

docs/sizing.md explains each constant and shows this table; a test compares the two.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from nearcase.index.fields import FIELDS, FieldKind
from nearcase.index.qdrant.layout import LINKED, OF_ONE_IMAGE

GB = 10**9
IMAGES = (10**6, 10**7, 10**8, 10**9)
DIMENSIONS = (1024, 1280)
CODES = {"none": 4.0, "int8": 1.0, "4bit": 0.5}
"""Bytes for each number of a vector that searches read."""

M = 16
GRAPH_BYTES = 2 * M * 4 + 22  # links of the lowest layer, of the upper ones, and lists
LINKED_BYTES = 2 * M * 4  # at most, for each linked field
ID_BYTES = 80  # a UUID, and the way to it and back
UNIQUE_BYTES = 150  # a value of its own, some 60 characters, with its list
COMMON_BYTES = 16  # one more image of a value, and one more value of an image
NUMBER_BYTES = 32
PAYLOAD_BYTES = 10_000  # assumed: a thumbnail of 160 pixels in base64, and 2 000 of facts
USABLE = 0.8  # the vendor: resize at 80 % of memory
VENDOR_FACTOR = 1.5  # the vendor's formula for vectors in memory
MOST_ON_A_NODE = 10**8  # the vendor: images on a node
NODE_GB = 256
REPLICAS = 2
LEAST_NODES = 3


@dataclass(frozen=True, slots=True)
class Size:
    """What one library needs; figures of one copy, but for `nodes`."""

    images: int
    dimension: int
    vectors_gb: float
    graph_gb: float
    indexes_gb: float  # in memory
    memory_gb: dict[str, float]  # by quantization
    disk_gb: dict[str, float]
    nodes: dict[str, int]  # of NODE_GB, for REPLICAS copies


def size_of(images: int, dimension: int) -> Size:
    """Returns what the library needs; indexes of unique fields are in memory only where the vectors are too."""
    keywords = [field for field, kind in FIELDS.items() if kind is FieldKind.KEYWORD]
    common = (len(keywords) - len(OF_ONE_IMAGE)) * COMMON_BYTES + (len(FIELDS) - len(keywords)) * NUMBER_BYTES
    unique = len(OF_ONE_IMAGE) * UNIQUE_BYTES
    graph = GRAPH_BYTES + len(LINKED) * LINKED_BYTES
    vector = 4 * dimension
    memory, disk = {}, {}
    for name, number in CODES.items():
        if name == "none":
            memory[name] = vector * VENDOR_FACTOR + graph + common + unique + ID_BYTES
        else:
            memory[name] = number * dimension + graph + common + ID_BYTES
        codes = 0 if name == "none" else number * dimension
        disk[name] = vector + codes + graph + common + unique + ID_BYTES + PAYLOAD_BYTES
    needed = {name: images * size / GB / USABLE for name, size in memory.items()}
    return Size(
        images,
        dimension,
        images * vector / GB,
        images * graph / GB,
        images * (common + ID_BYTES) / GB,
        needed,
        {name: images * size / GB for name, size in disk.items()},
        {name: _nodes(images, gb) for name, gb in needed.items()},
    )


def _nodes(images: int, memory_gb: float) -> int:
    by_memory = math.ceil(memory_gb * REPLICAS / NODE_GB)
    return max(LEAST_NODES, by_memory, math.ceil(images * REPLICAS / MOST_ON_A_NODE))


def rows(sizes: list[Size]) -> list[str]:
    """Returns the table as it stands in docs/sizing.md."""
    heads = (
        "images",
        "numbers",
        "vectors",
        "graph",
        "memory: none",
        "int8",
        "4bit",
        "disk: int8",
        "nodes: none",
        "int8",
    )
    lines = ["| " + " | ".join((*heads, "4bit")) + " |", "|" + "---|" * (len(heads) + 1)]
    for size in sizes:
        figures = (size.vectors_gb, size.graph_gb, *size.memory_gb.values(), size.disk_gb["int8"])
        cells = [_count(size.images), str(size.dimension), *(_gb(figure) for figure in figures)]
        lines.append("| " + " | ".join([*cells, *(str(count) for count in size.nodes.values())]) + " |")
    return lines


def _count(images: int) -> str:
    return f"{images // 10**9} B" if images >= 10**9 else f"{images // 10**6} M"


def _gb(figure: float) -> str:
    return f"{figure / 1000:.1f} TB" if figure >= 1000 else f"{figure:.0f} GB" if figure >= 10 else f"{figure:.1f} GB"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sizes = [size_of(images, dimension) for images in IMAGES for dimension in DIMENSIONS]
    print("\n".join(rows(sizes)))
    if given.json:
        given.json.write_text(json.dumps([asdict(size) for size in sizes], indent=2) + "\n")


if __name__ == "__main__":
    main()
