#!/usr/bin/env bash
# Assembles the root file system of the Dockerfile's last stage without a registry, from this machine's own libraries,
# and runs it as Cloud Run would: as PID 1, as user 65532, without capabilities, on a file system that cannot be written.
# Checks that it becomes healthy, and that it stops within 9 seconds of SIGTERM in the middle of a long task.
#
#   DATABASE_URL=postgres://… deploy/rootfs.sh [--at-most-mb N] BINARY
#
# The database must be migrated and nobody else may work on it: it gets one task of type echo. What stands for the base
# image is not that image: this proves what the binary needs, not what gcr.io serves. Exit code 69: bubblewrap cannot be used here.
set -Eeuo pipefail

say() { printf 'rootfs: %s\n' "$*" >&2; }
die() { say "FAILED: $*"; exit 1; }
trap 'say "FAILED in line $LINENO"' ERR

megabytes=
if [ "${1:-}" = --at-most-mb ]; then
    megabytes=$2
    shift 2
fi
binary=$(realpath "${1:?the binary is missing}")
: "${DATABASE_URL:?is missing}"
if ! command -v bwrap >/dev/null; then
    say 'NOT CHECKED: bubblewrap is not installed (apt-get install -y bubblewrap)'
    exit 69
fi
if ! bwrap --ro-bind / / --unshare-all --uid 65532 --gid 65532 true; then
    say 'NOT CHECKED: bubblewrap may not make namespaces here'
    exit 69
fi

size=$(stat -c %s "$binary")
if [ -n "$megabytes" ] && [ "$size" -gt $((megabytes * 1000 * 1000)) ]; then
    die "the binary has $size bytes, more than $megabytes MB"
fi

work=$(mktemp -d)
root=$work/root
sandbox=
clean_up() {
    if [ -n "$sandbox" ]; then kill -KILL "$sandbox" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap clean_up EXIT

# --- The file system ---------------------------------------------------------------------------------------------------
put() { install -D "$1" "$root$2"; }
put "$binary" /usr/local/bin/task-processor
# What distroless/cc has of glibc and gcc. Anything else would be missing there.
at_hand=' libc.so.6 libm.so.6 libgcc_s.so.1 libdl.so.2 libpthread.so.0 librt.so.1 libresolv.so.2 '
libraries=$(ldd "$binary" | awk '/=> not found/ { print $1 } /=> \// { print $3 } $1 ~ /^\// { print $1 }')
for library in $libraries; do
    name=${library##*/}
    case "$name" in ld-linux-*) ;; *) [[ $at_hand == *" $name "* ]] || die "the base image lacks $name" ;; esac
    put "$(realpath "$library")" "$library"
done
put /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
mkdir -p "$root/usr/share" "$root/proc" "$root/dev" "$root/tmp"
cp -r /usr/share/zoneinfo "$root/usr/share/zoneinfo"
echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin' >"$root/etc/passwd"
echo 'nonroot:x:65532:' >"$root/etc/group"
files=(--ro-bind "$root" / --proc /proc --dev /dev)
say "$(du -sm "$root" | cut -f1) MB, $((size / 1000 / 1000)) of them the binary; libraries:" "${libraries//$'\n'/ }"

# Runs the binary in there: the program and its arguments, after the options for bwrap and `--`.
inside() {
    exec bwrap "${files[@]}" --unshare-all --share-net --uid 65532 --gid 65532 --cap-drop ALL --die-with-parent \
        --new-session --as-pid-1 --clearenv --chdir / "$@"
}

# --- It trusts the authorities of that file system -----------------------------------------------------------------------
check=$(inside --setenv DATABASE_URL postgres://user:password@db.example.com/x -- /usr/local/bin/task-processor check-config)
say "certificates: $(grep '^database' <<<"$check")"

# --- It serves -----------------------------------------------------------------------------------------------------------
inside --setenv DATABASE_URL "$DATABASE_URL" --setenv PORT 0 --setenv LOG_FORMAT json --info-fd 3 \
    -- /usr/local/bin/task-processor serve 3>"$work/info" 2>"$work/log" &
sandbox=$!
# Waits for up to 20 s until the words after the first hold, and complains with the first.
wait_until() {
    local what=$1 tries=400
    shift
    until "$@"; do
        kill -0 "$sandbox" 2>/dev/null || { cat "$work/log" >&2; die "it ended before: $what"; }
        ((tries-- > 0)) || { cat "$work/log" >&2; die "not within 20 s: $what"; }
        sleep 0.05
    done
}
port_is_known() {
    port=$(sed -n 's/.*"address":"[^"]*:\([0-9]*\)".*/\1/p' "$work/log" | head -n 1)
    [ -n "$port" ]
}
is_healthy() { [ "$(PORT=$port "$binary" healthcheck 2>/dev/null)" = healthy ]; }
wait_until 'it listens' port_is_known
wait_until '/health answers 200, healthy' is_healthy

process=$(sed -n 's/.*"child-pid": *\([0-9]*\).*/\1/p' "$work/info")
[ "$(awk '{ print $1 }' "/proc/$process/uid_map")" = 65532 ] || die 'it is not user 65532'
grep -q '^CapEff:[[:space:]]*0*$' "/proc/$process/status" || die 'it has capabilities'
grep -q '^NSpid:.*[[:space:]]1$' "/proc/$process/status" || die 'it is not PID 1'
awk '$5 == "/" { print $6 }' "/proc/$process/mountinfo" | grep -qE '^ro(,|$)' || die 'its root can be written'
say "serves as user 65532, PID 1, without capabilities, on a read-only root"

# --- It stops ------------------------------------------------------------------------------------------------------------
DATABASE_URL=$DATABASE_URL "$binary" enqueue echo '{"sleep_ms": 60000}' >/dev/null
has_work() { PORT=$port "$binary" --json healthcheck 2>/dev/null | grep -q '"inHand":[[:space:]]*1\b'; }
wait_until 'it has taken the task' has_work
began=$(date +%s%N)
kill -TERM "$process"
code=0
wait "$sandbox" || code=$?
sandbox=
took=$((($(date +%s%N) - began) / 1000000))
[ "$code" -eq 0 ] || { cat "$work/log" >&2; die "exit code $code"; }
[ "$took" -lt 9000 ] || die "it took $took ms to stop"
say "stopped $took ms after SIGTERM, in the middle of a task"
