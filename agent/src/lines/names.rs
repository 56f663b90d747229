//! Names of the kernel's numbers: errors, signals, capabilities.

/// The symbol of an errno, or `E` and its number. include/uapi/asm-generic/errno*.h (v6.18).
pub(crate) fn errno(number: u32) -> std::borrow::Cow<'static, str> {
    ERRNOS
        .iter()
        .find(|(errno, _)| *errno == number)
        .map_or_else(|| format!("E{number}").into(), |(_, name)| (*name).into())
}

/// What a call of libpam returned, by its name: `_pam_types.h` of Linux-PAM 1.5.2.
pub(crate) fn pam_result(number: i32) -> std::borrow::Cow<'static, str> {
    let name = usize::try_from(number).ok().and_then(|number| PAM_RESULTS.get(number));
    name.map_or_else(|| format!("PAM_{number}").into(), |name| (*name).into())
}

/// By number.
const PAM_RESULTS: [&str; 32] = [
    "PAM_SUCCESS",
    "PAM_OPEN_ERR",
    "PAM_SYMBOL_ERR",
    "PAM_SERVICE_ERR",
    "PAM_SYSTEM_ERR",
    "PAM_BUF_ERR",
    "PAM_PERM_DENIED",
    "PAM_AUTH_ERR",
    "PAM_CRED_INSUFFICIENT",
    "PAM_AUTHINFO_UNAVAIL",
    "PAM_USER_UNKNOWN",
    "PAM_MAXTRIES",
    "PAM_NEW_AUTHTOK_REQD",
    "PAM_ACCT_EXPIRED",
    "PAM_SESSION_ERR",
    "PAM_CRED_UNAVAIL",
    "PAM_CRED_EXPIRED",
    "PAM_CRED_ERR",
    "PAM_NO_MODULE_DATA",
    "PAM_CONV_ERR",
    "PAM_AUTHTOK_ERR",
    "PAM_AUTHTOK_RECOVERY_ERR",
    "PAM_AUTHTOK_LOCK_BUSY",
    "PAM_AUTHTOK_DISABLE_AGING",
    "PAM_TRY_AGAIN",
    "PAM_IGNORE",
    "PAM_ABORT",
    "PAM_AUTHTOK_EXPIRED",
    "PAM_MODULE_UNKNOWN",
    "PAM_BAD_ITEM",
    "PAM_CONV_AGAIN",
    "PAM_INCOMPLETE",
];

/// A terminal as users know it, below /dev: the kernel calls `pts/0` by the name `pts0`.
pub(crate) fn terminal(name: &str) -> String {
    match name.strip_prefix("pts") {
        Some(number) if !number.starts_with('/') => format!("pts/{number}"),
        _ => name.to_owned(),
    }
}

/// `SIGKILL` and the like; real-time signals by their distance from the first.
pub(crate) fn signal(number: u32) -> String {
    match (number as usize).checked_sub(1).and_then(|index| SIGNALS.get(index)) {
        Some(name) => format!("SIG{name}"),
        None if number >= 32 => format!("SIGRTMIN+{}", number - 32),
        None => format!("SIG{number}"),
    }
}

/// The names of the set's members.
pub(crate) fn capabilities(set: u64) -> Vec<&'static str> {
    CAPABILITIES.iter().enumerate().filter(|(bit, _)| set >> bit & 1 != 0).map(|(_, name)| *name).collect()
}

/// Whether a set says something: it is neither empty nor all that a process of this host can have.
pub(crate) fn is_partial(set: u64, all: u64) -> bool {
    let all = all & ((1 << CAPABILITIES.len()) - 1);
    set & all != 0 && set & all != all
}

const ERRNOS: &[(u32, &str)] = &[
    (1, "EPERM"),
    (2, "ENOENT"),
    (3, "ESRCH"),
    (4, "EINTR"),
    (5, "EIO"),
    (6, "ENXIO"),
    (7, "E2BIG"),
    (8, "ENOEXEC"),
    (9, "EBADF"),
    (10, "ECHILD"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (14, "EFAULT"),
    (15, "ENOTBLK"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (18, "EXDEV"),
    (19, "ENODEV"),
    (20, "ENOTDIR"),
    (21, "EISDIR"),
    (22, "EINVAL"),
    (23, "ENFILE"),
    (24, "EMFILE"),
    (25, "ENOTTY"),
    (26, "ETXTBSY"),
    (27, "EFBIG"),
    (28, "ENOSPC"),
    (29, "ESPIPE"),
    (30, "EROFS"),
    (31, "EMLINK"),
    (32, "EPIPE"),
    (36, "ENAMETOOLONG"),
    (38, "ENOSYS"),
    (40, "ELOOP"),
    (80, "ELIBBAD"),
    (88, "ENOTSOCK"),
    (89, "EDESTADDRREQ"),
    (95, "EOPNOTSUPP"),
    (97, "EAFNOSUPPORT"),
    (98, "EADDRINUSE"),
    (99, "EADDRNOTAVAIL"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (102, "ENETRESET"),
    (103, "ECONNABORTED"),
    (104, "ECONNRESET"),
    (105, "ENOBUFS"),
    (106, "EISCONN"),
    (107, "ENOTCONN"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
    (112, "EHOSTDOWN"),
    (113, "EHOSTUNREACH"),
    (114, "EALREADY"),
    (115, "EINPROGRESS"),
    (122, "EDQUOT"),
    (126, "ENOKEY"),
    (129, "EKEYREJECTED"),
    (512, "ERESTARTSYS"),
];

/// From 1 on. arch/x86 and arm64 share include/uapi/asm-generic/signal.h (v6.18).
const SIGNALS: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// By bit. include/uapi/linux/capability.h (v6.18).
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_names() {
        assert_eq!(errno(2), "ENOENT");
        assert_eq!(errno(4242), "E4242");
        assert_eq!(signal(9), "SIGKILL");
        assert_eq!(signal(34), "SIGRTMIN+2");
        assert_eq!((terminal("pts12"), terminal("ttyS0")), ("pts/12".to_owned(), "ttyS0".to_owned()));
        assert_eq!(capabilities(1 << 21 | 1), ["CAP_CHOWN", "CAP_SYS_ADMIN"]);
        assert!(!is_partial(0, u64::MAX) && !is_partial((1 << 41) - 1, u64::MAX) && is_partial(5, u64::MAX));
        assert!(!is_partial(0b101, 0b101));
    }
}
