#!/bin/sh
# In the test VM: `tellwire check`, then every test binary; says how it went, and powers off.

# Programs of Debian, where there are any, before those of busybox.
export PATH=/usr/bin:/usr/sbin:/bin HOME=/tmp RUST_BACKTRACE=1 TELLWIRE_BIN=/bin/tellwire TELLWIRE_VM=1
# shellcheck disable=SC1091 # It stands beside this.
. /options.sh
exit=${MISCONFIGURED:-0}
ip link set lo up
# The kernel makes secrets when the first connection needs them, and takes the question whether it has them out of its code. An
# emulated CPU that comes there meanwhile may run what stood there for a moment, a breakpoint, after the kernel has forgotten it: a
# panic. So the first connections are made by one CPU alone.
for address in 127.0.0.1 ::1; do
    # The other end may not listen yet.
    taskset 1 sh -c "nc -l -p 9 >/dev/null & for try in 1 2 3 4 5; do sleep 1; echo | nc $address 9 2>/dev/null && exit; done; exit 1" ||
        echo "VM: no connection to $address"
done
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
    # They need a compiler's libraries, and overlays, which are a module of the kernel that is not here; or the kernel has no part in
    # what they show, and each starts an agent of its own for it.
    pam)
        without="containers:: overlay:: check:: a_host_without_libpam the_default_profile names_are_told_where_that_is_asked_for"
        ;;
    # Each starts an agent of its own, for what the kernel has no part in.
    audit) without="start::" ;;
    # Only runc is here: no engine, no image, no Prometheus.
    containers)
        without="containerd:: cri:: deployed:: docker:: dockerd:: image:: manifest:: many:: names:: robust:: scale:: shippers:: workloads::"
        ;;
    *) without= ;;
    esac
    # runc executes itself by a descriptor, which that kernel refuses with ENOENT in the emulator: it does not start.
    case "$test $(uname -rm)" in "containers 5.10."*aarch64) without="$without pods:: runc::" ;; esac
    for module in $without; do echo "-- $test: without $module"; done
    # shellcheck disable=SC2086 # Words.
    "/tests/$test" --test-threads=1 --include-ignored --show-output ${without:+$(printf -- '--skip %s ' $without)} ${filter:+"$filter"} || exit=$?
done

# Setting the terminal waits until the console has sent everything; powering off does not.
echo "EXIT=$exit"
stty sane </dev/console
poweroff -f
