# What confines the agent in the configuration `apparmor`: the capabilities that deploy/ asks for, and no others. Files are not what
# this is about.
abi <abi/3.0>,

profile tellwire /bin/tellwire flags=(attach_disconnected) {
  capability audit_control,
  capability audit_read,
  capability bpf,
  capability dac_read_search,
  capability net_admin,
  capability perfmon,
  capability sys_admin,
  capability sys_ptrace,

  /** rwlkm,
  /** pix,
  mount,
  umount,
  network,
  ptrace,
  signal,
  unix,
}
