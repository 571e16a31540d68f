#!/usr/bin/env bash
# Runs one scenario for several peers in turns, so that a drift of the machine meets all alike, and prints for each
# metric the median (lowest to highest) of every peer and its ratio to the first one named.
# usage: compare.sh SCENARIO ROUNDS PEER...     beside bench.py; N=… sets the number of jobs of a drain for all
set -euo pipefail
cd "$(dirname "$0")"
[ $# -ge 3 ] || { sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 2; }
scenario=$1 rounds=$2
shift 2
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
for ((round = 1; round <= rounds; round++)); do
    for peer in "$@"; do
        echo "round $round of $rounds: $peer" >&2
        timeout 420 ./run.sh "$peer" "$scenario" 1 >>"$lines" || echo "$peer $scenario FAILED" >&2
    done
done
exec .venv/bin/python - "$lines" "$@" <<'PYTHON'
import collections, statistics, sys

values = collections.defaultdict(list)
for line in open(sys.argv[1]):
    peer, _, metric, value = line.split()
    values[metric, peer].append(float(value))
first, *_ = peers = sys.argv[2:]
for metric in dict.fromkeys(metric for metric, _ in values):
    print(f"\n{metric}")
    base = statistics.median(values[metric, first]) if values[metric, first] else 0
    for peer in (peer for peer in peers if values[metric, peer]):
        got = values[metric, peer]
        median = statistics.median(got)
        ratio = f"{median / base:8.3f}" if base else "       -"
        print(f"  {peer:24}{median:12.5g}  ({min(got):.5g} to {max(got):.5g}, {len(got)} runs) {ratio}")
PYTHON
