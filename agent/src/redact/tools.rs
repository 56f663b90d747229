//! What programs take for a secret without a name that says so: short flags, positions, `user:password`.
//!
//! Which letter means a password is the program's own affair (`mysql -p`, `mkdir -p`), so there is nothing but a
//! table. A program that runs another one (`sudo`, `docker exec`) hands on to that one's row.

use rustc_hash::FxHashMap;

use super::base;

/// Rows for the same program add up.
#[derive(Debug)]
pub(super) struct Tool {
    /// Separated by spaces.
    names: &'static str,
    /// Words that must stand in the command before the row holds, in this order.
    pub(super) after: &'static str,
    pub(super) takes: &'static [Takes],
}

/// Where a secret stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    /// `-pX` or `-p X`.
    Short(u8),
    /// `-pX` only: `-p` alone asks for it.
    Joined(u8),
    /// A word, and the secret is the next one; of a long flag also behind `=`.
    Next(&'static str),
    /// The value of a short or long flag, from this byte on: `-u user:X`.
    Part(&'static str, u8),
    /// Behind the start of a word: `/p:X`.
    Prefix(&'static str),
    /// The value of a flag that is `Name: X`.
    Header(&'static str),
    /// Any word that is `Name:X`.
    AnyHeader,
    /// The nth word that is no flag, from 0, counted from behind the words of `after`.
    At(usize),
    /// The last word, if it is no flag; with a letter, only where a short flag has it.
    Last(Option<u8>),
    /// Every value of `K=X`.
    Assigned,
    /// `user/X@database`.
    Slash,
    /// `h=host,p=X`.
    Dsn,
    /// `domain/user:X@host`.
    UserAtHost,
    /// The flag's value is no secret here, whatever its name.
    Never(&'static str),
    /// The flag's value is a text for people: no command line, whatever it looks like.
    Prose(&'static str),
}

/// How a program runs another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapper {
    /// A later word is the program.
    Plain,
    /// The same, and words behind flags are names of containers and images.
    Container,
    /// The word behind a flag with `c` in it is a command line.
    Shell,
    /// Any word can be a command line.
    Remote,
}

/// What is known of a program.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) tools: Vec<&'static Tool>,
    pub(super) wrapper: Option<Wrapper>,
}

#[derive(Debug)]
pub(super) struct Tools(FxHashMap<&'static [u8], Known>);

impl Tools {
    pub(super) fn new() -> Self {
        let mut known: FxHashMap<&'static [u8], Known> = FxHashMap::default();
        for tool in TOOLS {
            for name in tool.names.split(' ') {
                known.entry(name.as_bytes()).or_default().tools.push(tool);
            }
        }
        for (wrapper, names) in WRAPPERS {
            for name in names.split_ascii_whitespace() {
                known.entry(name.as_bytes()).or_default().wrapper = Some(*wrapper);
            }
        }
        Self(known)
    }

    /// The names of programs that have a row, and do not only run others.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static [u8]> {
        self.0.iter().filter(|(_, known)| !known.tools.is_empty()).map(|(name, _)| *name)
    }

    /// The row of a program by its path. `python3.11` is a `python`, `-bash` is a login shell's `bash`.
    pub(super) fn get(&self, program: &[u8]) -> Option<&Known> {
        let name = base(program);
        let name = name.strip_prefix(b"-").unwrap_or(name);
        self.0.get(name).or_else(|| {
            let is_version = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
            let end = name.iter().rposition(|byte| !is_version(byte))? + 1;
            self.0.get(name.get(..end)?)
        })
    }
}

const WRAPPERS: &[(Wrapper, &str)] = &[
    (
        Wrapper::Plain,
        "sudo doas env nice ionice timeout nohup xargs busybox toybox setsid stdbuf strace ltrace time chroot nsenter \
         unshare gosu su-exec tini dumb-init catatonit s6-setuidgid chpst setpriv taskset numactl cgexec ip firejail \
         proxychains proxychains4 torsocks dbus-run-session xvfb-run faketime aws-vault op chamber direnv bundle npx \
         poetry pipenv uv uvx perf valgrind gdb find systemd-run chrt prlimit pkexec sshpass unbuffer catchsegv \
         python perl ruby node java php exec eval command builtin then do else if while until ! { time coproc \
         doppler infisical dotenv rlwrap runcon capsh setarch linux64 pidproxy envdir softlimit fakeroot nix-shell \
         wine cmd powershell pwsh expect apptainer singularity bwrap toolbox distrobox lxc-attach machinectl",
    ),
    (
        Wrapper::Container,
        "docker podman nerdctl kubectl oc crictl ctr lxc incus docker-compose podman-compose k3s microk8s",
    ),
    (Wrapper::Shell, "sh bash dash ash zsh ksh mksh fish su runuser script sg flock busybox.static"),
    (Wrapper::Remote, "ssh watch parallel tmux screen entr pdsh clush mosh rsh at batch"),
];

use Takes::{
    AnyHeader, Assigned, At, Dsn, Header, Joined, Last, Never, Next, Part, Prefix, Prose, Short, Slash,
    UserAtHost,
};

const fn tool(names: &'static str, after: &'static str, takes: &'static [Takes]) -> Tool {
    Tool { names, after, takes }
}

/// Flags whose names say it, such as `--password`, need no row.
const TOOLS: &[Tool] = &[
    // Databases.
    tool(
        "mysql mysqldump mysqladmin mysqlimport mysqlcheck mysqlshow mysqlslap mysqlbinlog mysql_upgrade mysqlpump \
         mysqlsh mariadb mariadb-dump mariadb-admin mariadb-check mariadb-import mariadb-show mariadb-binlog \
         mariadb-upgrade mariadb-slap mysql_secure_installation mydumper myloader mycli xtrabackup mariabackup \
         innobackupex mysqlhotcopy mysqlrouter",
        "",
        &[Joined(b'p')],
    ),
    tool("mydumper myloader mycli", "", &[Short(b'p')]),
    tool("mysqladmin mariadb-admin", "password", &[At(0)]),
    tool(
        "pt-online-schema-change pt-table-checksum pt-table-sync pt-archiver pt-kill pt-query-digest pt-heartbeat \
         pt-show-grants pt-slave-delay pt-duplicate-key-checker pt-mysql-summary",
        "",
        &[Dsn, Short(b'p')],
    ),
    tool(
        "mongo mongosh mongodump mongorestore mongoexport mongoimport mongostat mongotop mongofiles",
        "",
        &[Short(b'p')],
    ),
    tool(
        "redis-cli redis-benchmark valkey-cli valkey-benchmark keydb-cli memtier_benchmark",
        "",
        &[Short(b'a')],
    ),
    tool("redis-cli valkey-cli keydb-cli", "AUTH", &[Last(None)]),
    tool("redis-cli valkey-cli keydb-cli", "auth", &[Last(None)]),
    tool("redis-cli valkey-cli keydb-cli", "requirepass", &[At(0)]),
    tool("redis-cli valkey-cli keydb-cli", "masterauth", &[At(0)]),
    tool("cqlsh dsetool", "", &[Short(b'p')]),
    tool("nodetool", "", &[Next("-pw")]),
    tool("sqlcmd bcp tsql isql osql mssql-cli", "", &[Short(b'P')]),
    tool("beeline impala-shell", "", &[Short(b'p')]),
    tool("sqlplus expdp impdp exp imp rman sqlldr sql", "", &[Slash]),
    tool("influx", "", &[Short(b't')]),
    tool("cypher-shell arangosh", "", &[Short(b'p')]),
    // The web.
    tool(
        "curl curlie",
        "",
        &[
            Part("-u", b':'),
            Part("--user", b':'),
            Part("-U", b':'),
            Part("--proxy-user", b':'),
            Part("-E", b':'),
            Part("--cert", b':'),
            Header("-H"),
            Header("--header"),
            Header("--proxy-header"),
            Part("-b", b'='),
            Part("--cookie", b'='),
        ],
    ),
    tool("wget wget2", "", &[Header("--header")]),
    tool("http https xh xhs httpie", "", &[Part("-a", b':'), Part("--auth", b':'), AnyHeader]),
    tool("ab", "", &[Part("-A", b':'), Part("-P", b':'), Header("-H"), Next("-C")]),
    tool("hey wrk siege vegeta bombardier oha", "", &[Part("-a", b':'), Header("-H"), Header("--header")]),
    tool("grpcurl websocat evans", "", &[Header("-H"), Header("-rpc-header"), Header("-reflect-header")]),
    tool("nikto gobuster ffuf feroxbuster sqlmap", "", &[Part("-id", b':'), Header("-H"), Short(b'P')]),
    tool("ngrok", "authtoken", &[At(0)]),
    tool("ngrok", "add-authtoken", &[At(0)]),
    tool("cloudflared", "install", &[At(0)]),
    // Remote access and mail.
    tool("sshpass", "", &[Short(b'p')]),
    tool("plink pscp psftp putty pageant puttygen", "", &[Next("-pw")]),
    tool(
        "smbclient rpcclient smbget smbcacls smbcquotas net wmic winexe nmblookup smbmap pth-winexe",
        "",
        &[Part("-U", b'%'), Part("--user", b'%'), Part("--username", b'%')],
    ),
    tool(
        "smbmap crackmapexec netexec nxc evil-winrm hydra medusa patator ldapdomaindump bloodhound-python",
        "",
        &[Short(b'p'), Next("-H")],
    ),
    tool("net", "user", &[At(1)]),
    tool("net", "use", &[At(2)]),
    tool("samba-tool", "create", &[At(1)]),
    tool("xfreerdp xfreerdp3 wlfreerdp sdl-freerdp", "", &[Prefix("/p:"), Next("-p")]),
    tool("rdesktop", "", &[Short(b'p')]),
    tool(
        "secretsdump.py psexec.py wmiexec.py smbexec.py atexec.py smbclient.py GetUserSPNs.py GetNPUsers.py \
          impacket-secretsdump impacket-psexec impacket-wmiexec impacket-smbexec impacket-smbclient dcomexec.py",
        "",
        &[UserAtHost],
    ),
    tool("lftp ncftp", "", &[Part("-u", b',')]),
    tool("ncftp ncftpget ncftpput ncftpls", "", &[Short(b'p')]),
    tool("curlftpfs", "", &[Part("-o", b':')]),
    tool("swaks", "", &[Next("-ap")]),
    tool("sendemail sendEmail", "", &[Next("-xp")]),
    tool("mosquitto_pub mosquitto_sub mosquitto_rr mqtt", "", &[Short(b'P'), Next("-pw")]),
    tool("rabbitmqadmin", "", &[Short(b'p')]),
    tool("rabbitmqctl", "add_user", &[At(1)]),
    tool("rabbitmqctl", "change_password", &[At(1)]),
    tool("rabbitmqctl", "authenticate_user", &[At(1)]),
    // Directories, devices, networks.
    tool(
        "ldapsearch ldapmodify ldapadd ldapdelete ldapwhoami ldapcompare ldapmodrdn ldapexop ldapvi ldappasswd dsconf \
          dsidm kadmin ipa-client-install ipa-replica-install",
        "",
        &[Short(b'w')],
    ),
    tool("ldappasswd", "", &[Short(b'a'), Short(b's')]),
    tool("kadmin kadmin.local", "", &[Next("-pw")]),
    tool("ipa-server-install", "", &[Short(b'a'), Short(b'p')]),
    tool("ipmitool ipmipower ipmiconsole ipmi-sensors ipmi-sel bmc-info", "", &[Short(b'P'), Short(b'p')]),
    tool("racadm", "", &[Short(b'p')]),
    tool(
        "snmpget snmpwalk snmpset snmpbulkget snmpbulkwalk snmpgetnext snmptable snmptrap snmpstatus snmpdf",
        "",
        &[Short(b'A'), Short(b'X'), Short(b'c')],
    ),
    tool("nmcli", "", &[Next("password"), Next("wifi-sec.psk"), Next("802-11-wireless-security.psk")]),
    tool("pppd", "", &[Next("password")]),
    tool("wpa_passphrase", "", &[At(1)]),
    tool("wpa_cli", "psk", &[At(0)]),
    tool("radtest", "", &[At(1), At(4)]),
    // Archives, documents, cryptography.
    tool("zip unzip zipcloak", "", &[Short(b'P')]),
    tool("7z 7za 7zr 7zz p7zip", "", &[Joined(b'p')]),
    tool("rar unrar", "", &[Prefix("-hp"), Joined(b'p')]),
    tool("steghide outguess", "", &[Short(b'p')]),
    tool("ccrypt ccencrypt ccdecrypt", "", &[Short(b'K')]),
    tool("pdftk", "", &[Next("input_pw"), Next("user_pw"), Next("owner_pw")]),
    tool("qpdf", "--encrypt", &[At(0), At(1)]),
    tool(
        "openssl",
        "",
        &[
            Prefix("pass:"),
            Next("-k"),
            Next("-K"),
            Next("-srppass"),
            Never("-pass"),
            Never("-passin"),
            Never("-passout"),
            Never("-passwd"),
        ],
    ),
    tool("openssl", "passwd", &[Last(None)]),
    tool("mkpasswd", "", &[Last(None)]),
    tool("htpasswd", "", &[Last(Some(b'b'))]),
    tool("caddy", "hash-password", &[Short(b'p'), Next("--plaintext")]),
    tool("ansible-vault", "encrypt_string", &[At(0)]),
    tool("rclone", "obscure", &[At(0)]),
    // Accounts.
    tool("useradd usermod adduser groupadd groupmod", "", &[Short(b'p')]),
    // Registries, clouds, clusters.
    tool("docker podman nerdctl buildah skopeo oras crane helm regctl oc az acr", "login", &[Short(b'p')]),
    tool(
        "docker podman buildah nerdctl kubectl oc gcloud docker-compose podman-compose",
        "",
        &[Never("--secret")],
    ),
    tool(
        "skopeo podman buildah crictl",
        "",
        &[Part("--creds", b':'), Part("--src-creds", b':'), Part("--dest-creds", b':')],
    ),
    tool("ctr", "", &[Part("-u", b':'), Part("--user", b':')]),
    tool("kubectl oc", "create secret", &[Assigned]),
    tool("flyctl fly", "secrets set", &[Assigned]),
    tool("heroku", "config:set", &[Assigned]),
    tool("vault bao", "login", &[Last(None)]),
    tool("vault bao", "kv put", &[Assigned]),
    tool("vault bao", "kv patch", &[Assigned]),
    tool("vault bao", "operator unseal", &[At(0)]),
    tool("vault bao", "unwrap", &[At(0)]),
    tool("vault bao", "token lookup", &[At(0)]),
    tool("vault bao", "token revoke", &[At(0)]),
    tool("vault bao", "token renew", &[At(0)]),
    tool("aws", "ssm put-parameter", &[Next("--value")]),
    tool("aws", "", &[Never("--secret")]),
    tool("az", "secret set", &[Next("--value")]),
    tool("az", "storage", &[Next("--sas")]),
    tool("gh", "secret set", &[Short(b'b'), Next("--body")]),
    tool("glab", "login", &[Short(b't')]),
    tool("glab", "variable set", &[Short(b'v'), Next("--value"), At(1)]),
    tool("doctl", "", &[Short(b't')]),
    tool("mc mcli", "alias set", &[At(2), At(3)]),
    tool("mc mcli", "config host add", &[At(2), At(3)]),
    tool("bw", "login", &[At(1)]),
    tool("bw", "unlock", &[At(0)]),
    tool("etcdctl", "user add", &[Part("", b':')]),
    tool("etcdctl", "", &[Part("--user", b':')]),
    tool("pulumi", "", &[Never("--secret")]),
    tool("pulumi", "config set --secret", &[Last(None)]),
    tool("conjur", "login", &[Short(b'p')]),
    tool("virsh", "secret-set-value", &[At(1)]),
    // Building and publishing.
    tool("twine", "", &[Short(b'p')]),
    tool("poetry", "publish", &[Short(b'p')]),
    tool("poetry composer", "config", &[At(2)]),
    tool("cargo", "login", &[At(0)]),
    tool("conan", "user", &[Short(b'p')]),
    tool("conan", "login", &[Short(b'p')]),
    tool("nuget", "setapikey", &[At(0)]),
    tool("nuget", "setApiKey", &[At(0)]),
    tool("dotnet", "nuget push", &[Short(b'k')]),
    tool("gem", "push", &[Short(b'k')]),
    tool("jarsigner keytool apksigner", "", &[Prefix("pass:")]),
    tool("signtool osslsigncode", "", &[Next("-p"), Next("/p"), Next("-pass")]),
    tool("consul", "set-agent-token", &[At(1)]),
    tool("vault bao", "write auth/approle/login", &[Assigned]),
    tool("grafana-cli grafana", "reset-admin-password", &[At(0)]),
    tool("az", "sql server create", &[Short(b'p')]),
    tool("az", "mysql server create", &[Short(b'p')]),
    tool("az", "postgres server create", &[Short(b'p')]),
    tool("hdbsql", "", &[Short(b'p')]),
    tool("db2", "connect", &[Next("using")]),
    tool("zip", "", &[Next("-eP"), Next("-rP"), Next("-qP"), Next("-qrP"), Next("-rqP"), Next("-jP")]),
    // A command of lftp's own.
    tool("open", "", &[Part("-u", b',')]),
    // `-pass` counts passes.
    tool(
        "ffmpeg x264 x265 vpxenc aomenc HandBrakeCLI SvtAv1EncApp ffprobe",
        "",
        &[Never("-pass"), Never("--pass")],
    ),
    tool("openvpn", "", &[Never("--auth-user-pass")]),
    // The key is said, the value is a file.
    tool("kubectl oc", "", &[Never("--from-file"), Never("--from-env-file")]),
    // Messages for people.
    tool("git hg svn", "", &[Prose("-m"), Prose("-am"), Prose("--message")]),
    tool("gh glab", "", &[Prose("--body"), Prose("--title"), Prose("--notes"), Prose("-b"), Prose("-t")]),
];

/// Commands of which the word behind a name is its value: `npm config set NAME X`.
pub(super) const SETTERS: &[(&str, &str)] = &[
    ("npm", "set"),
    ("yarn", "set"),
    ("pnpm", "set"),
    ("pip", "set"),
    ("git", "config"),
    ("aws", "set"),
    ("composer", "config"),
    ("poetry", "config"),
    ("bundle", "config"),
    ("kubectl", "set"),
    ("snap", "set"),
    ("gsettings", "set"),
    ("rclone", "create"),
    ("crudini", "--set"),
    ("pulumi", "set"),
    ("gcloud", "set"),
    ("openstack", "set"),
    ("occ", "config:system:set"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_found_by_its_path_and_version() {
        let tools = Tools::new();
        for name in ["mysql", "/usr/bin/mysqldump", "/usr/bin/python3.11", "-bash", "7z", "bash", "mongosh"] {
            assert!(tools.get(name.as_bytes()).is_some(), "{name}");
        }
        for name in ["", "/", "ls", "mysqld", "cargo-clippy"] {
            assert!(tools.get(name.as_bytes()).is_none(), "{name}");
        }
    }
}
