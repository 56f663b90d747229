# What the kernel's command line says as tellwire.NAME=VALUE.

option() {
    for word in $(cat /proc/cmdline); do
        case $word in "tellwire.$1="*) echo "${word#*=}" ;; esac
    done
}
