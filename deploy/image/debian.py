"""The image's base: files of a few packages of Debian, straight from their archives.

What must always hold: a package is one that apt's own signatures and `base.lock` vouch for; no script of a package runs,
so the files are the same on whatever machine they are unpacked.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.image.entries import Entry, Tree, directory, file, link

LOCK = Path(__file__).with_name("base.lock")

# What Python and the wheels load; there is no shell, no package manager and no program but Python and chroot.
PACKAGES = (
    "base-files",  # os-release, and the licences that the packages' copyright files point to
    "coreutils",  # chroot alone: the agent executes the plugins of networks in the node's own file system
    "gcc-12-base",
    "libbz2-1.0",
    "libc6",
    "libcrypt1",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libsqlite3-0",
    "libssl3",
    "libstdc++6",
    "libuuid1",
    "python3.11-minimal",
    "zlib1g",
)
# What a server has no use for: terminals, dbm files, NIS, Python's own tests and tools, and other character sets.
_LEFT_OUT = re.compile(
    r"usr/lib/python3\.11/(test|pydoc_data|ensurepip|idlelib|lib2to3|turtledemo|tkinter|venv)/.*"
    r"|usr/lib/python3\.11/lib-dynload/(_curses|_curses_panel|_dbm|nis|ossaudiodev|readline|xxlimited|_test|_xxtest|_ctypes_test)"
    r"[^/]*\.so"
    r"|usr/lib/[^/]+/gconv/.*"
)
_KEPT = re.compile(
    r"usr/lib/.+|usr/bin/python3\.11|usr/sbin/chroot"
    r"|etc/(os-release|debian_version|ld\.so\.conf\.d/.+|python3\.11/.+)|usr/lib64/.+"
    r"|usr/share/(doc/[^/]+/copyright|common-licenses/.+)"
)
# With Debian's merged /usr these are links.
_MERGED = ("bin", "lib", "lib64", "sbin")


class PackageGone(Exception):
    """A package of the lock that the system's mirror does not have any more; the text says what to do."""


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One package as the lock names it: `sha256` is that of its archive."""

    name: str
    version: str
    architecture: str
    sha256: str


def read_lock() -> list[Package]:
    """All packages of the lock, of every architecture."""
    lines = (line.split() for line in LOCK.read_text().splitlines() if not line.startswith("#"))
    return [Package(*words) for words in lines]


def write_lock(packages: Sequence[Package]) -> None:
    head = "# Written by `./try image --lock`: package, version, architecture, SHA-256 of the archive.\n"
    lines = (
        f"{package.name} {package.version} {package.architecture} {package.sha256}\n"
        for package in sorted(packages)
    )
    LOCK.write_text(head + "".join(lines))


class Archive:
    """The packages of the machine's own apt sources for one architecture, kept in `cache`."""

    def __init__(self, cache: Path, architecture: str) -> None:
        self._architecture = architecture
        self._debs = cache / "debs"
        # Of its own, so that any user can ask for any architecture and nothing of the machine's apt changes.
        self._state = cache / "apt" / architecture
        self._fresh = False

    def fetch(self, package: Package) -> Path:
        """The archive of exactly this package. Raises PackageGone."""
        path = self._debs / f"{package.sha256}.deb"
        if path.is_file() and _sha256(path) == package.sha256:
            return path
        self._update()
        wanted = f"{package.name}={package.version}"
        with tempfile.TemporaryDirectory(dir=self._debs) as folder:
            done = self._apt("download", wanted, cwd=Path(folder))
            debs = list(Path(folder).glob("*.deb"))
            if done.returncode != 0 or not debs:
                raise PackageGone(
                    f"the base names {wanted} ({package.architecture}), which apt cannot fetch here: "
                    f"{_last_line(done.stderr)}. Debian's mirrors keep the newest version alone: "
                    "`./try image --lock` names today's, and a build with `--newest-base` takes them once"
                )
            if _sha256(debs[0]) != package.sha256:
                raise PackageGone(f"{wanted} is not what base.lock vouches for: {_sha256(debs[0])}")
            debs[0].replace(path)
        return path

    def newest(self) -> list[Package]:
        """What apt would take today. Raises PackageGone when there is no such package."""
        self._update()
        done = self._apt("show", "--no-all-versions", *PACKAGES)
        packages = []
        for stanza in done.stdout.split("\n\n"):
            fields = dict(re.findall(r"^(Package|Version|Architecture|SHA256): (.*)$", stanza, re.MULTILINE))
            if fields:
                packages.append(
                    Package(fields["Package"], fields["Version"], self._architecture, fields["SHA256"])
                )
        missing = set(PACKAGES) - {package.name for package in packages}
        if missing:
            raise PackageGone(
                f"apt knows no package {', '.join(sorted(missing))} here: {_last_line(done.stderr)}"
            )
        return packages

    def _update(self) -> None:
        if self._fresh:
            return
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise PackageGone(
                "the base is made of Debian's packages, and there is no apt-get or dpkg-deb here"
            )
        self._debs.mkdir(parents=True, exist_ok=True)
        for name in ("lists/partial", "archives/partial"):
            (self._state / name).mkdir(parents=True, exist_ok=True)
        done = self._apt("update")
        if done.returncode != 0:
            raise PackageGone(f"apt cannot read its sources: {_last_line(done.stderr)}")
        self._fresh = True

    def _apt(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        settings = {
            "Dir::State::lists": self._state / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": self._state,
            "APT::Architecture": self._architecture,
            "APT::Architectures::": self._architecture,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        program = "apt-cache" if arguments[0] == "show" else "apt-get"
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return subprocess.run(
            [program, *options, *arguments],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )


def base(debs: Sequence[tuple[Package, Path]]) -> Tree:
    """The tree of the base: the packages' files, users, and the record of packages that scanners read."""
    tree: Tree = {
        path: directory()
        for path in ("dev", "etc", "home", "proc", "root", "run", "sys", "usr", "var", "var/lib")
    }
    tree["tmp"] = directory(0o1777)
    tree["root"] = directory(0o700)
    for name in _MERGED:
        tree[name] = link(f"usr/{name}")
        tree[f"usr/{name}"] = directory()
    tree["var/run"] = link("/run")
    for package, deb in debs:
        tree |= dict(_files(deb))
        tree[f"var/lib/dpkg/status.d/{package.name}"] = file(_control(deb))
    tree["usr/bin/python3"] = link("python3.11")
    tree["etc/passwd"] = file(
        b"root:x:0:0:root:/root:/usr/sbin/nologin\norbweaver:x:65532:65532::/home:/usr/sbin/nologin\n"
    )
    tree["etc/group"] = file(b"root:x:0:\norbweaver:x:65532:\n")
    tree["etc/nsswitch.conf"] = file(b"passwd: files\ngroup: files\nhosts: files dns\n")
    return tree


def _files(deb: Path) -> Iterator[tuple[str, Entry]]:
    data = subprocess.check_output(["dpkg-deb", "--fsys-tarfile", str(deb)])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            if path.split("/")[0] in _MERGED:
                path = f"usr/{path}"
            if not _KEPT.fullmatch(path) or _LEFT_OUT.fullmatch(path):
                continue
            if member.issym():
                yield path, link(member.linkname)
            elif not member.isdir():
                content = archive.extractfile(member)
                assert content is not None
                yield path, file(content.read(), member.mode & 0o7777)


def _control(deb: Path) -> bytes:
    return subprocess.check_output(["dpkg-deb", "--field", str(deb)])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("W:")]
    return lines[-1] if lines else "no reason given"
