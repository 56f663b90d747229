#!/bin/sh
# PID 1 of the test VM: mount, set up what is to be different, and go on with tests.sh.
# What to do differently stands on the kernel's command line, as tellwire.NAME=VALUE.
# Whatever stops it early panics the kernel, which ends QEMU without the EXIT line: a failure.

export PATH=/bin

# Containers get their root directory by pivot_root, which the file system that the kernel unpacks this into does not allow.
if [ -z "$SWITCHED" ]; then
    export SWITCHED=1
    mkdir /new
    mount -t tmpfs -o mode=755 tmpfs /new
    for part in /*; do [ "$part" = /new ] || cp -a "$part" /new; done
    exec switch_root /new /init
fi

mount -t proc proc /proc
# shellcheck disable=SC1091 # It stands beside this.
. /options.sh
configuration=$(option configuration)

mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
if [ "$configuration" = systemd ]; then
    # It mounts the rest, and its one unit goes on with tests.sh.
    unset SWITCHED
    exec /usr/lib/systemd/systemd --unit=tests.service --show-status=no --log-level=warning
fi
mount -t tmpfs tmpfs /tmp
# Tests write their trees here, and 5.10 knows no `exec` on what the root file system gives.
chmod 1777 /tmp
mount -t securityfs securityfs /sys/kernel/security
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null

v1() {
    for controller in cpuset cpu,cpuacct memory devices pids; do
        mkdir -p "/sys/fs/cgroup/$controller"
        # A kernel may be built without one of them.
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" 2>/dev/null || rmdir "/sys/fs/cgroup/$controller"
    done
}
case $configuration in
cgroup-v1)
    mount -t tmpfs tmpfs /sys/fs/cgroup
    v1
    ;;
cgroup-hybrid)
    mount -t tmpfs tmpfs /sys/fs/cgroup
    v1
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    ;;
*) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
esac
mount -t bpf bpf /sys/fs/bpf
case $configuration in
no-tracefs) umount /sys/kernel/debug ;;
*) mount -t tracefs tracefs /sys/kernel/tracing ;;
esac
case $configuration in
unprivileged-bpf-disabled) echo 2 >/proc/sys/kernel/unprivileged_bpf_disabled ;;
btf-file)
    # A kernel that gives no types, and a file that has them.
    cp /sys/kernel/btf/vmlinux /tmp/kernel.btf
    mount -t tmpfs tmpfs /sys/kernel/btf
    export TELLWIRE_BTF=/tmp/kernel.btf
    ;;
apparmor)
    cat /etc/apparmor.policy >/sys/kernel/security/apparmor/.load
    # The agent waits for somebody who writes its configuration.
    mkfifo /tmp/config
    tellwire run --config /tmp/config 2>/dev/null &
    # This opens once the agent does.
    exec 3>/tmp/config
    confined=$(cat "/proc/$!/attr/current")
    kill "$!"
    exec 3>&-
    ;;
cpu-hotplug)
    # One CPU comes and goes for as long as the tests run. While it does, nobody can attach a program: there must be time between.
    (while :; do
        echo 0 >/sys/devices/system/cpu/cpu1/online
        sleep 2
        echo 1 >/sys/devices/system/cpu/cpu1/online
        sleep 3
    done) &
    ;;
esac
# What the kernel did not take would prove nothing.
case $configuration in
apparmor) [ "$confined" = "tellwire (enforce)" ] ;;
preempt-full) grep -q '(full)' /sys/kernel/debug/sched/preempt ;;
lockdown-*) grep -q "\[${configuration#lockdown-}\]" /sys/kernel/security/lockdown ;;
unprivileged-bpf-disabled) grep -qx 2 /proc/sys/kernel/unprivileged_bpf_disabled ;;
many-cpus) grep -qx 0-71 /sys/devices/system/cpu/possible ;;
esac || {
    echo "VM: not configured as asked: $configuration"
    export MISCONFIGURED=1
}
exec /bin/sh /tests.sh
