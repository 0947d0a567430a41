"""The Dockerfile's steps in a bare Debian 12, and its start command with a root that can not be written.

No engine is at hand: layers, the digest and the registry's base image are not looked at. Debian comes from debootstrap
as the base, which is what its images are made from.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_root import ImageRoot, Stage, instructions, needed_for
from serving import picture

PROJECT = Path(__file__).parents[1]
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
START_LIMIT_S = 120

IN_THE_ROOT = """
set -eu
ip link set lo up
mount --bind "$ROOT" "$ROOT"
mount -o remount,ro,bind "$ROOT"
mount -t tmpfs -o mode=1777 tmp "$ROOT/tmp"
mount -t tmpfs -o uid=10001,gid=10001,mode=0750 data "$ROOT/data"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs dev "$ROOT/dev"
for each in null zero random urandom; do touch "$ROOT/dev/$each"; mount --bind "/dev/$each" "$ROOT/dev/$each"; done
mkdir "$ROOT/dev/shm"; mount -t tmpfs -o mode=1777 shm "$ROOT/dev/shm"
cp "$FILES"/* "$ROOT/tmp"; chmod a+r "$ROOT"/tmp/*
inside() { /usr/sbin/chroot --userspec=10001:10001 "$ROOT" /usr/bin/env -i $ENVIRONMENT "$@"; }
# Not through the function, whose process would get the signal in the server's place.
/usr/sbin/chroot --userspec=10001:10001 "$ROOT" /usr/bin/env -i $ENVIRONMENT $COMMAND > "$FILES/server.log" 2>&1 &
server=$!
for second in $(seq 60); do grep -q 'is ready' "$FILES/server.log" && break; sleep 1; done
inside nearcase add /tmp/a.png /tmp/b.png
inside nearcase search /tmp/a.png -k 2 --json
inside nearcase check --server 127.0.0.1:50051
inside sh -c 'id -u; touch /opt/nearcase/x 2>&1 || true; command -v gcc cc c++ pip pip3 make || echo no compiler'
inside nearcase-models engine build --engines /data/engines || true
kill -TERM $server
wait $server
echo stopped with $?
"""
"""Run in network, process and mount spaces of its own; what the engine of a cluster would set up is set up here."""


# The parts that need no root


def test_last_stages_are_not_root_and_hold_no_package_tools() -> None:
    by_stage: dict[str, list[tuple[str, str]]] = {}
    for word, text in instructions(DOCKERFILE):
        stage = text.partition(" AS ")[2] if word == "FROM" else next(reversed(by_stage), "")
        by_stage.setdefault(stage, []).append((word, text))
    for target in ("cpu", "gpu"):
        steps = by_stage[target]
        assert ("USER", "10001:10001") in steps
        assert "RUN" not in {word for word, _ in steps}
        assert not {"apt-get", "build-essential", "gcc"} & set(" ".join(text for _, text in steps).split())


def test_the_base_can_be_pinned_by_its_digest() -> None:
    assert ("FROM", "${BASE}${DIGEST} AS python") in instructions(DOCKERFILE)
    assert [text for word, text in instructions(DOCKERFILE) if word == "FROM" and "/" in text] == []


def test_the_image_holds_what_the_bill_of_materials_lists() -> None:
    (listed,) = re.findall(r"^SHIPPED_EXTRAS := (.+)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    installed = re.findall(r"nearcase-\*\.whl\)\[([a-z,]+)\]", DOCKERFILE)
    assert installed == [listed, listed.replace("cpu", "gpu")]


def test_a_target_is_made_of_its_own_stages_alone() -> None:
    assert needed_for(DOCKERFILE, "cpu") == {"python", "wheel", "wheel-cpu", "base", "cpu"}


def test_an_unknown_instruction_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    root = ImageRoot(tmp_path, tmp_path / "base", tmp_path / "work", {})
    (tmp_path / "work").mkdir()
    with pytest.raises(ValueError, match="HEALTHCHECK"):
        root.build("FROM x AS a\nHEALTHCHECK NONE\n", "a")


def test_what_the_context_leaves_out_is_not_copied() -> None:
    kept = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        path
        for word, text in instructions(DOCKERFILE)
        if word == "COPY" and not text.startswith("--from")
        for path in text.split()[:-1]
    }
    assert copied == kept


# The whole of it


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bare Debian 12 that reaches what this machine reaches."""
    if os.geteuid() != 0:
        pytest.skip("steps of an image run as root: chroot and mount need it")
    absent = [name for name in ("debootstrap", "unshare", "ip") if shutil.which(name) is None]
    if absent:
        pytest.skip(f"the bare Debian needs {absent}: apt-get install debootstrap util-linux iproute2")
    root = tmp_path_factory.mktemp("image") / "debian"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "bookworm", root], check=False, capture_output=True, text=True, timeout=600
    )
    if made.returncode != 0:
        pytest.skip(f"debootstrap can not make a Debian here: {made.stdout.strip().splitlines()[-1:]}")
    for name in ("etc/resolv.conf", "etc/hosts"):
        shutil.copy(f"/{name}", root / name)
    certificates = os.environ.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt"
    if Path(certificates).is_file():
        shutil.copy(certificates, root / "root" / "certificates.pem")
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def image(debian: Path) -> Iterator[Stage]:
    work = debian.parent / "stages"
    work.mkdir()
    outside = {
        name: value for name, value in os.environ.items() if name.startswith("PIP_INDEX") or "proxy" in name.lower()
    }
    outside |= {"PIP_CERT": "/root/certificates.pem", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    outside["DEBIAN_FRONTEND"] = "noninteractive"
    yield ImageRoot(PROJECT, debian, work, outside).build(DOCKERFILE, "cpu")
    shutil.rmtree(work)


@pytest.mark.slow
def test_the_start_command_of_the_image_answers_a_search(image: Stage, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.png").write_bytes(picture(seed))
    environment = os.environ | {
        "ROOT": str(image.root),
        "FILES": str(tmp_path),
        "COMMAND": " ".join((*image.entrypoint, *image.command)),
        "ENVIRONMENT": " ".join(f"{name}={value}" for name, value in image.environment.items()),
    }
    assert image.user == "10001:10001"
    spaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    done = subprocess.run(
        [*spaces, "sh", "-c", IN_THE_ROOT],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S + 60,
    )
    told = done.stdout + done.stderr + (tmp_path / "server.log").read_text()
    assert done.returncode == 0, told
    assert "2 added" in told
    assert '"rank": 1' in told  # b, as an image is never shown to itself
    assert "no compiler" in told
    assert "Read-only file system" in told
    assert "Expected TensorRT" in told  # the command is there without torch
    assert "10001" in told
    assert "stopped with 0" in told


@pytest.mark.slow
def test_no_stage_of_the_image_can_become_root(image: Stage) -> None:
    opt = image.root / "opt" / "nearcase"
    modes = [path.lstat() for path in (image.root / "opt").rglob("*") if not path.is_symlink()]
    assert opt.is_dir()
    assert not [each for each in modes if each.st_uid != 0 or each.st_mode & 0o022]
    assert not list(opt.rglob("torch")) + list(opt.rglob("pip"))
