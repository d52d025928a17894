"""Chores: ``nox`` runs lint, tests and cpp; ``nox -s NAME`` any one; ``nox -l`` lists them.

Sessions that need torch install what NOX_TORCH says, by default the newest: ``NOX_TORCH="torch==2.10.0" nox -s tests``.
"""

from __future__ import annotations

import os
import shutil

import nox

nox.needs_version = ">=2024.10"
nox.options.sessions = ["lint", "tests", "cpp"]
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
TORCH = os.environ.get("NOX_TORCH", "torch").split()
ALL_TESTS = ["-m", "slow or not slow"]
# Kernels for every GPU, and not for those of this machine alone.
KERNELS = ["-Ccmake.define.CLR_NATIVE_CUDA=ON"] if shutil.which("nvcc") else []
BUILD_TOOLS = ["cmake>=3.25", "ninja", "pybind11>=3.0", "apache-tvm-ffi>=0.1.6"]


def install(session: nox.Session, *extras: str) -> None:
    """torch first, so that its index is asked for nothing else; then the package."""
    session.install(*TORCH)
    session.install(*KERNELS, f".[{','.join(extras)}]")


def ctest(session: nox.Session, *presets: str) -> None:
    session.install("cmake>=3.25", "ninja")
    for preset in presets:
        session.run("cmake", "--preset", preset)
        session.run("cmake", "--build", "--preset", preset)
        session.run("ctest", "--preset", preset, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, mypy and clang-format, without changing a file."""
    install(session, "dev")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("mypy", "bench", "docs", "noxfile.py")
    session.run("mypy", "tests", "tools")
    listed = session.run("git", "ls-files", "csrc/*", "tests/cpp/*", external=True, silent=True) or ""
    sources = [name for name in listed.split() if name.endswith((".h", ".cpp", ".inl"))]
    session.run("clang-format", "--dry-run", "-Werror", *sources)


@nox.session
def tidy(session: nox.Session) -> None:
    """clang-tidy over csrc/; its checks stand in .clang-tidy."""
    install(session, "dev")
    session.install(*BUILD_TOOLS)
    pybind11 = (session.run("python", "-m", "pybind11", "--cmakedir", silent=True) or "").strip()
    session.run("cmake", "--preset", "tidy", f"-Dpybind11_DIR={pybind11}")
    session.run("run-clang-tidy.py", "-quiet", "-p", "build/tidy", *(session.posargs or ["csrc/"]))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The Python tests, of the installed package, with coverage."""
    install(session, "test")
    session.run("pytest", *ALL_TESTS, "--cov=clr_native", *session.posargs)


@nox.session
def cpp(session: nox.Session) -> None:
    """The C++ tests with checked iterators and as they ship."""
    ctest(session, "dev", "release")


@nox.session
def sanitize(session: nox.Session) -> None:
    """The C++ tests under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer."""
    ctest(session, "asan-ubsan", "tsan")


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
    session.run("pytest", *ALL_TESTS, *session.posargs, env={"LD_PRELOAD": runtimes, **options})


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


@nox.session
def dist(session: nox.Session) -> None:
    """Source distribution and wheel, built and checked, into dist/."""
    session.install("build", "twine")
    session.run("python", "-m", "build", *KERNELS)
    session.run("twine", "check", "--strict", "dist/*")
