#!/usr/bin/env bash
# This is what a part of run.sh does, which sets OUT, PYTHON and the paths. Lines with a star are for the verdict.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$(dirname "$here")")
cd "$root" || exit
export PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

environment() {
  nvidia-smi || echo "* nvidia-smi cannot be run"
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null |
    sed 's/^/* name, driver, memory, highest clock: /'
  for tool in c++ nvcc cmake ninja ncu compute-sanitizer; do
    command -v "$tool" || echo "* $tool was not found"
  done
  nvcc --version 2>/dev/null | sed -n 's/.*release/* nvcc/p'
  "$PYTHON" -m pip list
  "$PYTHON" "$here/about.py" environment
}

# What a build lacks, in words; nothing if it lacks nothing. One without kernels would have nothing to say of a GPU.
lacking() {
  for tool in "${CXX:-c++}" nvcc "$PYTHON"; do
    command -v "$tool" >/dev/null || printf '%s was not found, ' "$tool"
  done
  command -v "$PYTHON" >/dev/null || return
  for module in torch pybind11 scikit_build_core; do
    "$PYTHON" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$module') is None)" 2>/dev/null ||
      printf 'there is no Python package %s, ' "$module"
  done
  [ -n "${CLR_NATIVE_CUDA_ARCHITECTURES:-}" ] || "$PYTHON" cmake/visible_gpus.py 75 2>&1 >/dev/null | sed 's/$/, /'
}

put() {
  rm -rf "$OUT/site"
  "$PYTHON" -m pip install --no-deps --no-build-isolation --target "$OUT/site" "$@" &&
    "$PYTHON" "$here/about.py" package && return
  rm -rf "$OUT/site"
  return 1
}

install_package() {
  local wheel why
  for wheel in "$here"/clr_native-*.whl "$root"/dist/clr_native-*.whl; do
    [ -e "$wheel" ] || continue
    put "$wheel" && return
    echo "* $(basename "$wheel") does not serve here"
  done
  why=$(lacking)
  if [ -n "$why" ]; then
    echo "no wheel serves here, and none can be built: $(tr -d '\n' <<<"$why" | sed 's/, *$//')"
    return 1
  fi
  put --config-settings=build-dir="$OUT/build" "$root"
}

kernels() {
  local metrics=gpu__time_duration.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed
  metrics+=,sm__warps_active.avg.pct_of_peak_sustained_active,launch__registers_per_thread
  ncu --clock-control none --csv --page raw --metrics "$metrics" \
    --kernel-name 'regex:^clr_(step_(float32|bfloat16|float16)|norm)$' "$PYTHON" -m tools.gpu.steps kernels
}

sanitize() {
  # Each tensor has memory of its own, so that what goes past its end is seen.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 9 "$PYTHON" -m tools.gpu.steps clipped
}

# All of it is read before any of it runs, so that another version of this file may be put in its place meanwhile.
main() {
  case $1 in
  environment) environment ;;
  install) install_package ;;
  tests)
    "$PYTHON" -m pytest tests/gpu -m cuda -v -ra --tb=short -W default -p no:cacheprovider -o addopts= -o minversion= \
      -o faulthandler_timeout=60 || return
    grep -q '^tests/.* PASSED' "$OUT/tests.txt" || {
      echo "no test could run"
      return 1
    }
    ;;
  replay) "$PYTHON" -m tools.gpu.steps replay ;;
  bench)
    rm -f "$OUT/bench.json"
    "$PYTHON" -m bench.cuda --rounds "${CLR_NATIVE_GPU_ROUNDS:-8}" --json "$OUT/bench.json"
    ;;
  kernels) kernels ;;
  memcheck | racecheck) sanitize "$1" ;;
  esac
  exit
}
main "$1"
