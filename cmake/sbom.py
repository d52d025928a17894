"""Writes what is compiled into the extension as a CycloneDX document, for .dist-info/sboms of a wheel (PEP 770).

    python sbom.py FILE version=1.0 pybind11=3.1.0 dlpack.h=/path/dlpack.h [nvcc=/path/nvcc]

Numpy and torch are not part of it: a wheel needs them, and says so in its own metadata.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any


def component(name: str, version: str, licence: str, url: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": url,
        "name": name,
        "version": version,
        "licenses": [{"expression": licence}],
        "purl": url,
        **more,
    }


def of_pypi(name: str, version: str, licence: str, **more: Any) -> dict[str, Any]:
    return component(name, version, licence, f"pkg:pypi/{name}@{version}", **more)


def dlpack(header: Path) -> dict[str, Any]:
    """The header by its own version, and the package that brought it."""
    text = header.read_text(encoding="utf-8")
    version = ".".join(re.findall(r"^#define DLPACK_M(?:AJOR|INOR)_VERSION (\d+)", text, flags=re.MULTILINE))
    package = "torch" if "ATen" in header.parts else "apache-tvm-ffi"
    origin = {"name": "brought by", "value": f"{package} {importlib.metadata.version(package)}"}
    return component("dlpack", version, "Apache-2.0", f"pkg:github/dmlc/dlpack@v{version}", properties=[origin])


def cuda(nvcc: str) -> dict[str, Any]:
    """What nvcc adds to the kernels: inline functions of its headers, and its library for devices."""
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.findall(r"V(\d+\.\d+\.\d+)", said)[0]
    return component("cuda-nvcc", version, "LicenseRef-NVIDIA-CUDA-EULA", f"pkg:generic/cuda-nvcc@{version}")


def document(given: dict[str, str]) -> dict[str, Any]:
    """Has neither a date nor a random number, so that a build that is repeated gives the same file."""
    whole = of_pypi("clr-native", given["version"], "MIT")
    parts = [of_pypi("pybind11", given["pybind11"], "BSD-3-Clause"), dlpack(Path(given["dlpack.h"]))]
    if "nvcc" in given:
        parts.append(cuda(given["nvcc"]))
    refs = [part["bom-ref"] for part in parts]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": whole},
        "components": parts,
        "dependencies": [{"ref": whole["bom-ref"], "dependsOn": refs}, *({"ref": ref} for ref in refs)],
    }


if __name__ == "__main__":
    file, *pairs = sys.argv[1:]
    written = json.dumps(document(dict(pair.split("=", 1) for pair in pairs)), indent=2)
    Path(file).write_text(f"{written}\n", encoding="utf-8")
