#!/usr/bin/env bash
# This gives a verdict from a GPU machine in less than ten minutes: tools/gpu/run.sh OUT [PART...]. No network, no root.
#
# It installs a wheel that lies beside it or in dist/, or builds one with what the machine has, into OUT/site. Then it
# runs the parts below, each under a limit and whatever became of those before. OUT/verdict.md sums up, from the first
# part on, and OUT/PART.txt has all that a part printed. The exit code is 0 where no part failed.
#
#   PYTHON                          the interpreter, by default python3; it has torch, numpy and pytest
#   CLR_NATIVE_CUDA_ARCHITECTURES   what a build compiles for, as 90: by default the GPUs that it sees
#   CLR_NATIVE_GPU_LIMITS           other limits in seconds, as "tests=300 bench=900"
#   CLR_NATIVE_GPU_ROUNDS           rounds of the benchmark
set -uo pipefail
exec </dev/null

parts=(environment install tests replay bench kernels memcheck racecheck)
declare -A limits=(
  [environment]=15 [install]=140 [tests]=120 [replay]=20 [bench]=150 [kernels]=40 [memcheck]=20 [racecheck]=20
) # with five seconds more for what does not end when it is told to, they add up to 565
for pair in ${CLR_NATIVE_GPU_LIMITS:-}; do
  limits[${pair%%=*}]=${pair#*=}
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ $# -eq 0 ] || ! mkdir -p "$1" || ! out=$(cd "$1" && pwd); then
  echo "usage: tools/gpu/run.sh OUT [PART...]; OUT is a folder to write to, parts are ${parts[*]}" >&2
  exit 2
fi
shift
for part in "$@"; do
  if [ -z "${limits[$part]:-}" ]; then
    echo "there is no part $part; parts are ${parts[*]}" >&2
    exit 2
  fi
done
export OUT=$out PYTHON=${PYTHON:-python3} PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
export PYTHONPATH=$out/site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# Why a part has nothing to do; nothing if it has.
idle() {
  case $1 in
  environment | install) return ;;
  kernels) command -v ncu >/dev/null || echo "ncu was not found" ;;
  memcheck | racecheck) command -v compute-sanitizer >/dev/null || echo "compute-sanitizer was not found" ;;
  esac
  [ -d "$out/site/clr_native" ] || echo "no package was installed"
}

# How a part ended, from its exit code and seconds; nothing if well.
ending() {
  local code=$1 took=$2 limit=${limits[$part]}
  if [ "$code" -eq 0 ]; then
    return
  elif [ "$code" -eq 124 ] || { [ "$code" -eq 137 ] && [ "$took" -ge "$limit" ]; }; then
    echo "it was stopped at its limit of $limit s"
  elif [ "$code" -gt 128 ]; then
    echo "it was killed by signal $((code - 128))"
  else
    grep -v '^[[:space:]]*$' "$out/$part.txt" | tail -n 1 | cut -c 1-400
  fi
}

# Writes a line for the verdict (a part, how it ended, seconds, words), and the verdict as it is by now.
note() {
  printf '%s\t%s\t%s\t%s\n' "$@" >>"$out/parts.tsv"
  echo "=== $1 $2 after $3 s${4:+: $4}"
  if ! timeout -k 1 10 "$PYTHON" "$here/verdict.py" "$out" >"$out/verdict.log" 2>&1; then
    # The shell alone writes it where there is no Python.
    printf '# Verdict\n\nIt could not be summed up: %s\n\n' "$(tail -n 1 "$out/verdict.log")" >"$out/verdict.md"
    sed 's/^/    /' "$out/parts.tsv" >>"$out/verdict.md"
    failed=1
  fi
}

failed=0
if [ $# -eq 0 ]; then
  # A whole run begins anew; parts that are named take the place of what they were before.
  set -- "${parts[@]}"
  rm -f "$out/parts.tsv" "$out/bench.json" "$out"/*.txt
fi
for part in "$@"; do
  : >"$out/$part.txt"
  why=$(idle "$part" | head -n 1)
  if [ -n "$why" ]; then
    note "$part" skipped 0 "$why"
    continue
  fi
  echo "=== $part, at most ${limits[$part]} s"
  # What a part leaves running would keep a pipe open: it writes to a file, which is shown meanwhile.
  tail -s 0.1 --pid=$$ -n +1 -f "$out/$part.txt" &
  shown=$!
  begun=$SECONDS
  timeout -s INT -k 5 "${limits[$part]}" bash "$here/part.sh" "$part" >>"$out/$part.txt" 2>&1
  code=$?
  took=$((SECONDS - begun))
  sleep 0.3
  kill "$shown"
  wait "$shown" 2>/dev/null
  why=$(ending "$code" "$took")
  if [ "$code" -eq 0 ]; then
    note "$part" ended "$took" ""
  else
    failed=1
    note "$part" failed "$took" "${why:-exit code $code}"
  fi
done
echo "=== $out/verdict.md"
cat "$out/verdict.md"
exit "$failed"
