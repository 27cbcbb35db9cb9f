#!/usr/bin/env bash
# Checks the units of deploy/ under systemd itself: as process 1 of its own namespaces, with this machine's files
# under an overlay, so nothing of the machine is changed.
#
# Needs bash, systemd, util-linux, iproute2, sqlite3, and root. FRAMELET=… names a program that is already built.

# shellcheck disable=SC2317,SC2329 # some functions are called by their names
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

SYSTEMD=/lib/systemd/systemd
# What has no place in a container, would look for hardware, or would change the kernel, which is not its own.
MASKED='systemd-udevd.service systemd-udev-trigger.service systemd-logind.service systemd-modules-load.service
    systemd-sysctl.service systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service systemd-remount-fs.service
    systemd-random-seed.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount
    dev-hugepages.mount dev-mqueue.mount timers.target'

framelet_binary
need unshare util-linux
need nsenter util-linux
need ip iproute2
need sqlite3 sqlite3
[ -x "$SYSTEMD" ] || die "$SYSTEMD is needed and was not found (on Debian: apt-get install systemd)"
[ "$(id -u)" -eq 0 ] || die "root is needed, for namespaces and mounts"
work_dir

# ---- the machine

# In its own namespaces, so the mounts end with them.
# shellcheck disable=SC2016 # the other shell expands them
BOOT='
    set -e
    root=$1/root
    mount --make-rprivate /
    mount -t tmpfs tmpfs "$1/disk"
    mkdir "$1/disk/upper" "$1/disk/work"
    mount -t overlay -o "lowerdir=/,upperdir=$1/disk/upper,workdir=$1/disk/work" overlay "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    # Not the devices of this machine, where systemd would put its own sockets.
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for device in null zero full random urandom tty; do
        touch "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    mkdir -p "$root/etc/systemd/system" "$root/etc/framelet"
    # Services that are enabled on this machine are none of the test.
    rm -rf "$root"/etc/systemd/system/*.wants
    for unit in $4; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
    : >"$root/etc/fstab"
    printf "%032x\n" 4747 >"$root/etc/machine-id"
    cp "$2" "$root/usr/bin/framelet"
    cp "$3"/framelet@.* "$root/etc/systemd/system/"
    ip link set lo up
    # Not chroot, in which units could have no view of the file system of their own.
    cd "$root"
    mkdir -p outside
    pivot_root . outside
    umount -l /outside
    exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --system --unit=basic.target --log-target=journal
'

# machine: the machine, in control groups of its own, which go when it ends.
machine() {
    local groups=() group tries
    set +e
    while read -r group; do
        group=$group/framelet.$$
        if mkdir "$group" 2>/dev/null; then
            groups+=("$group")
            # Some want settings first, and then stay out of it.
            printf '%s\n' "$BASHPID" >"$group/cgroup.procs" || true
        fi
    done < <(awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/self/mounts) 2>/dev/null
    unshare --fork --pid --mount --uts --ipc --net --cgroup --kill-child \
        bash -c "$BOOT" boot "$WORK" "$FRAMELET" "$ROOT/deploy" "$MASKED" &
    printf '%s\n' $! >"$WORK/outside"
    # The machine ends with the script, however that ends.
    trap 'kill -KILL $!' TERM
    while kill -0 $! && kill -0 $$; do sleep 0.1; done 2>/dev/null
    kill -KILL $! 2>/dev/null
    for group in "${groups[@]}"; do
        printf '%s\n' "$BASHPID" >"${group%/*}/cgroup.procs"
        # Its processes may still be ending.
        for ((tries = 0; tries < 50; tries++)); do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
            [ -d "$group" ] || break
            sleep 0.1
        done
    done
    kill -0 $$ 2>/dev/null || rm -rf "$WORK"
}

# inside COMMAND...: runs it in the machine.
inside() {
    limited nsenter -t "$MACHINE" --pid --mount --uts --ipc --net --root --wd \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

is_up() { [ "$(inside systemctl is-system-running 2>/dev/null)" = running ]; }
has_begun() {
    local outside
    outside=$(cat "$WORK/outside" 2>/dev/null) &&
        MACHINE=$(cat "/proc/$outside/task/$outside/children" 2>/dev/null) && [ -n "$MACHINE" ]
}

mkdir "$WORK/root" "$WORK/disk"
start machine machine
machine=$PID
LAST_SIGNAL[$machine]=TERM
lib_poll "its first process" "$machine" has_begun || die "no namespaces: $WHY"
MACHINE=${MACHINE%% *}
lib_poll "the end of its start" "$machine" is_up || die "systemd does not run in a namespace here: $WHY"

show() { inside systemctl show --value -p "$1" framelet@4747.service; }
sent() { inside framelet send 127.0.0.1:4747 --ack --message "$1"; }
stored() { inside sqlite3 /var/lib/private/framelet/4747/messages.db 'SELECT payload FROM messages ORDER BY rowid'; }

# reaches DESCRIPTION TEST: a case that holds as soon as TEST does.
reaches() {
    if lib_poll "that $1" "$machine" "$2"; then case_ok "$1"; else case_failed "$1" "$WHY"; fi
}

# ---- the life of a service

check "the socket is enabled and started" inside systemctl enable --now framelet@4747.socket
check "no server runs before the first connection" test "$(show ActiveState)" = inactive
check "the first client starts it, and is served" sent one
check "it has said that it is ready" test "$(show SubState)" = running
check "and what it does" grep -q '^1 of .* connection open\|^0 of .* connections open' <<<"$(show StatusText)"
check "it works" inside framelet ping :4747
check "it may write only to its own directory, where the messages are" test "$(stored)" = one
is_nobody() { [ "$(inside stat -c %u "/proc/$(show MainPID)")" -ge 61184 ]; }
check "it runs as a user that exists only while it runs" is_nobody

first=$(show MainPID)
inside kill -KILL "$first"
check "after it was killed, the next client is served" sent two
check "by another process" test "$(show MainPID)" != "$first"
check "and what was stored before is still there" test "$(stored)" = $'one\ntwo'

# A watchdog that barks soon.
inside mkdir -p /run/systemd/system/framelet@4747.service.d
inside sh -c 'printf "[Service]\nWatchdogSec=2\n" >/run/systemd/system/framelet@4747.service.d/watchdog.conf'
inside systemctl daemon-reload
inside systemctl restart framelet@4747.service
second=$(show MainPID)
is_petted() { [ "$(show WatchdogTimestampMonotonic)" -gt "$petted" ]; }
petted=$(show WatchdogTimestampMonotonic)
reaches "it feeds its watchdog" is_petted
inside kill -STOP "$second"
is_replaced() { local now && now=$(show MainPID) && [ "$now" != "$second" ] && [ "$now" != 0 ]; }
reaches "a server that hangs is replaced" is_replaced
check "and the next client is served" sent three

# A client that is connected and silent, until the server ends.
inside sh -c 'mkfifo /run/silent && exec framelet send 127.0.0.1:4747 --input lines <>/run/silent' >/dev/null 2>&1 &
is_connected() { [[ $(show StatusText) == "1 of"* ]]; }
reaches "the status counts a client that is connected" is_connected
check "it stops" inside systemctl stop framelet@4747.service
check "in good time and without an error" test "$(show Result) $(show ExecMainStatus)" = "success 0"
check "its socket still listens, and starts it again" sent four
check "nothing was lost" test "$(stored)" = $'one\ntwo\nthree\nfour'

# ---- another sink, by its file of options

inside sh -c 'echo "FRAMELET_OPTIONS=--to file:messages" >/etc/framelet/4748.env'
inside systemctl start framelet@4748.socket
check "another port has its own options" inside framelet send 127.0.0.1:4748 --message before
inside mv /var/lib/private/framelet/4748/messages /var/lib/private/framelet/4748/messages.1
check "it reloads" inside systemctl reload framelet@4748.service
is_reopened() { inside test -e /var/lib/private/framelet/4748/messages; }
reaches "its file is opened again" is_reopened
check "which takes the next message" inside framelet send 127.0.0.1:4748 --message after
contents() { inside cat "/var/lib/private/framelet/4748/$1"; }
check "and the old one has the message before" test "$(contents messages.1) $(contents messages)" = "before after"

# Names the services that failed, with what they said.
no_unit_has_failed() {
    local failed
    failed=$(inside systemctl --failed --plain --no-legend)
    [ -z "$failed" ] || { inside journalctl --no-pager -n 30; return 1; }
}
check "no unit has failed" no_unit_has_failed
inside systemctl --no-block poweroff >/dev/null 2>&1 || true
wait_for_exit "$machine" || true
finish
