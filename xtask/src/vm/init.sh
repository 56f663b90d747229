#!/bin/sh
# PID 1 of the test VM: mount, run every test binary, say how it went, power off.
# Whatever stops it early panics the kernel, which ends QEMU without the EXIT line: a failure.

export PATH=/bin HOME=/tmp RUST_BACKTRACE=1 TELLWIRE_BIN=/bin/tellwire TELLWIRE_VM=1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
ip link set lo up
echo "Linux $(uname -r), LSMs: $(cat /sys/kernel/security/lsm)"

cd /tmp
filter=$(cat /etc/test-filter)
exit=0
for test in /tests/*; do
    echo "-- ${test##*/}"
    "$test" --test-threads=1 ${filter:+"$filter"} || exit=$?
done

# Setting the terminal waits until the console has sent everything; powering off does not.
echo "EXIT=$exit"
stty sane </dev/console
poweroff -f
