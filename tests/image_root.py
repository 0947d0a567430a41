"""Runs the steps of a Dockerfile in folders, one for each stage, where no engine is at hand.

Only what our Dockerfile uses is understood, and anything else is an error: ARG, FROM, RUN, COPY, ENV, WORKDIR, USER,
EXPOSE, STOPSIGNAL, ENTRYPOINT and CMD. It runs as root: each RUN is a chroot. Not looked at are layers, digests, the
base image (a Debian root from debootstrap stands in) and .dockerignore beyond what COPY names.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

STEP_LIMIT_S = 900


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its root, and what a container of it would be started with."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Returns each instruction with its text, continuation lines joined and comments left out."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [(word, text.strip()) for word, _, text in (line.partition(" ") for line in joined)]


class ImageRoot:
    """Builds stages below a folder.

    Args:
        context: The folder that COPY reads.
        base: A root that takes the place of the base image.
        work: Where the stages' roots go.
        environment: What RUN sees besides the stage's own ENV, as an engine's proxy arguments would give it.
    """

    def __init__(self, context: Path, base: Path, work: Path, environment: Mapping[str, str]) -> None:
        self._context, self._base, self._work, self._outside = context, base, work, dict(environment)
        self.stages: dict[str, Stage] = {}
        self._arguments: dict[str, str] = {}

    def build(self, dockerfile: str, target: str) -> Stage:
        """Returns the target's stage; others are built only where it needs them."""
        wanted = needed_for(dockerfile, target)
        name = ""
        for word, text in instructions(dockerfile):
            if word == "ARG":
                key, _, value = text.partition("=")
                self._arguments[key] = value
            elif word == "FROM":
                source, _, name = text.partition(" AS ")
                if name in wanted:
                    self.stages[name] = self._begin(source, name)
            elif name in wanted:
                self.stages[name] = self._step(self.stages[name], word, text)
        return self.stages[target]

    def _begin(self, source: str, name: str) -> Stage:
        root = self._work / name
        before = self.stages.get(source, Stage(self._base))
        subprocess.run(["cp", "-a", "--reflink=auto", before.root, root], check=True)
        return replace(before, root=root)

    def _step(self, stage: Stage, word: str, text: str) -> Stage:
        match word:
            case "RUN":
                self._run(stage, text)
                return stage
            case "COPY":
                self._copy(stage, text)
                return stage
            case "ENV":
                given = dict(pair.split("=", 1) for pair in shlex.split(text))
                return replace(stage, environment={**stage.environment, **given})
            case "WORKDIR":
                (stage.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
                return replace(stage, folder=text)
            case "USER":
                return replace(stage, user=text)
            case "EXPOSE":
                return replace(stage, ports=tuple(text.split()))
            case "ENTRYPOINT":
                return replace(stage, entrypoint=tuple(json.loads(text)), command=())
            case "CMD":
                return replace(stage, command=tuple(json.loads(text)))
            case "STOPSIGNAL":
                return stage
        raise ValueError(f"expected an instruction that is known here, got {word}")

    def _run(self, stage: Stage, text: str) -> None:
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **self._outside}
        command = [
            "chroot",
            f"--userspec={stage.user}",
            str(stage.root),
            "/bin/sh",
            "-c",
            f"cd {stage.folder} && {text}",
        ]
        done = subprocess.run(
            command,
            env=environment | dict(stage.environment),
            check=False,
            capture_output=True,
            text=True,
            timeout=STEP_LIMIT_S,
        )
        if done.returncode != 0:
            raise RuntimeError(f"RUN {text[:80]}: {(done.stderr or done.stdout)[-2000:]}")

    def _copy(self, stage: Stage, text: str) -> None:
        words = shlex.split(text)
        source = self._context
        if words[0].startswith("--from="):
            source = self.stages[words.pop(0).removeprefix("--from=")].root
        *paths, target = words
        into = stage.root / (Path(stage.folder) / target).as_posix().lstrip("/")
        for path in paths:
            found = source / path.lstrip("/")
            if found.is_dir():
                skip = shutil.ignore_patterns("__pycache__", "*.pyc") if source == self._context else None
                shutil.copytree(found, into, symlinks=True, dirs_exist_ok=True, ignore=skip)
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, into / found.name)


def needed_for(dockerfile: str, target: str) -> set[str]:
    """Returns the stages that a target is made of, itself included."""
    above: dict[str, set[str]] = {}
    name = ""
    for word, text in instructions(dockerfile):
        if word == "FROM":
            source, _, name = text.partition(" AS ")
            above[name] = {source}
        elif word == "COPY" and text.startswith("--from="):
            above[name].add(text.split()[0].removeprefix("--from="))
    found, waiting = set(), [target]
    while waiting:
        if (stage := waiting.pop()) in above and stage not in found:
            found.add(stage)
            waiting += above[stage]
    return found
