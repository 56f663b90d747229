#!/bin/sh
# PID 1 of the test VM: mount, run `tellwire check`, then every test binary, say how it went, power off.
# What to do differently stands on the kernel's command line, as tellwire.NAME=VALUE.
# Whatever stops it early panics the kernel, which ends QEMU without the EXIT line: a failure.

export PATH=/bin HOME=/tmp RUST_BACKTRACE=1 TELLWIRE_BIN=/bin/tellwire TELLWIRE_VM=1

# Containers get their root directory by pivot_root, which the file system that the kernel unpacks this into does not allow.
if [ -z "$SWITCHED" ]; then
    export SWITCHED=1
    mkdir /new
    mount -t tmpfs -o mode=755 tmpfs /new
    for part in /*; do [ "$part" = /new ] || cp -a "$part" /new; done
    exec switch_root /new /init
fi

mount -t proc proc /proc
option() {
    for word in $(cat /proc/cmdline); do
        case $word in "tellwire.$1="*) echo "${word#*=}" ;; esac
    done
}
configuration=$(option configuration)

mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
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
exit=0
# What the kernel did not take would prove nothing.
case $configuration in
apparmor) [ "$confined" = "tellwire (enforce)" ] ;;
preempt-full) grep -q '(full)' /sys/kernel/debug/sched/preempt ;;
lockdown-*) grep -q "\[${configuration#lockdown-}\]" /sys/kernel/security/lockdown ;;
unprivileged-bpf-disabled) grep -qx 2 /proc/sys/kernel/unprivileged_bpf_disabled ;;
many-cpus) grep -qx 0-71 /sys/devices/system/cpu/possible ;;
esac || {
    echo "VM: not configured as asked: $configuration"
    exit=1
}
ip link set lo up
echo "VM: Linux $(uname -r), $(uname -m), LSMs: $(cat /sys/kernel/security/lsm), lockdown: $(cat /sys/kernel/security/lockdown 2>/dev/null)"
echo "VM: CPUs: $(cat /sys/devices/system/cpu/possible), preemption: $(cat /sys/kernel/debug/sched/preempt /sys/kernel/debug/sched_preempt 2>/dev/null)"

cd /tmp
if [ "$(option what)" = btf ]; then
    echo "BTF-BEGIN"
    gzip -c /sys/kernel/btf/vmlinux | base64
    echo "BTF-END"
else
    echo "CHECK-BEGIN"
    tellwire check --json >check.json || exit=$?
    cat check.json
    echo "CHECK-END"
    # Tests ask as well, and it takes an emulated machine some seconds.
    export TELLWIRE_CHECK=/tmp/check.json
fi
filter=$(option filter)
for test in $(option tests | tr , ' '); do
    echo "-- $test"
    case $test in
    # They need a compiler's libraries, and overlays, which are a module of the kernel that is not here.
    pam) without="containers:: overlay:: a_host_without_libpam" ;;
    # Only runc is here: no engine, no image, no Prometheus.
    containers)
        without="containerd:: cri:: deployed:: docker:: dockerd:: image:: manifest:: many:: names:: robust:: scale:: shippers:: workloads::"
        ;;
    *) without= ;;
    esac
    for module in $without; do echo "-- $test: without $module"; done
    # shellcheck disable=SC2086 # Words.
    "/tests/$test" --test-threads=1 --include-ignored --show-output ${without:+$(printf -- '--skip %s ' $without)} ${filter:+"$filter"} || exit=$?
done

# Setting the terminal waits until the console has sent everything; powering off does not.
echo "EXIT=$exit"
stty sane </dev/console
poweroff -f
