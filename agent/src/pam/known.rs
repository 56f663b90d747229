//! Which names are users: what people type where a name is asked for may be their password.
//!
//! A name is known if the host's passwd file has it, or that of the container; or if it has ever succeeded. Any other is
//! taken out of the record before anything else sees it.

use std::{
    borrow::Cow,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use rustc_hash::{FxHashMap, FxHashSet};
use tellwire_ebpf::{
    pam::{Call, Pam},
    wire::{Header, Kind},
};
use tokio::sync::mpsc;
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::{
    config::UnknownUserNames,
    enrich::users::Users,
    events::{Event, decode, texts},
};

/// Names that have succeeded, kept at the most; beyond, they are forgotten all at once.
const PROVEN: usize = 65536;

/// Makes numbers of names: the names of a large passwd file are not kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameHash(Arc<RandomState>);

impl NameHash {
    pub(super) fn of(&self, name: &[u8]) -> u64 {
        self.0.hash_one(name)
    }
}

/// The users of a mount namespace; nobody is in it any more where there are none.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) namespace: u32,
    pub(crate) users: Option<FxHashSet<u64>>,
}

/// Tells users from what else is typed.
#[derive(Debug)]
pub(crate) struct KnownUsers {
    policy: UnknownUserNames,
    /// The host's mount namespace.
    host: Option<u32>,
    hash: NameHash,
    told: mpsc::Receiver<Names>,
    users: FxHashMap<u32, FxHashSet<u64>>,
    proven: FxHashSet<(u32, u64)>,
}

impl KnownUsers {
    pub(crate) fn new(
        policy: UnknownUserNames,
        host: Option<u32>,
        hash: NameHash,
        told: mpsc::Receiver<Names>,
    ) -> Self {
        Self { policy, host, hash, told, users: FxHashMap::default(), proven: FxHashSet::default() }
    }

    pub(crate) fn set_policy(&mut self, policy: UnknownUserNames) {
        self.policy = policy;
    }

    /// A record without its user's name, if that is withheld; `None` where the record stays as it is.
    pub(crate) fn screen(&mut self, record: &[u8], users: &mut Users) -> Option<Vec<u8>> {
        // The kind stands in the sixth byte.
        if record.get(5) != Some(&(Kind::Pam as u8)) {
            return None;
        }
        let Ok((_, Event::Pam(pam))) = decode(record) else { return None };
        if pam.user.is_empty() {
            return None;
        }
        let namespace = pam.wire.mount_namespace;
        let key = (namespace, self.hash.of(pam.user));
        let proves = matches!(pam.call, Call::Authenticate | Call::Account | Call::SessionOpen);
        if proves && pam.wire.result == Pam::SUCCESS && pam.wire.flags & Pam::FLAG_NO_RESULT == 0 {
            if self.proven.len() >= PROVEN {
                self.proven.clear();
            }
            self.proven.insert(key);
        }
        if self.is_shown(Some(namespace), pam.user, users) { None } else { withheld(record) }
    }

    /// Whether a name that was tried in this mount namespace may be told. Of one that is not known, the host's users are
    /// asked.
    pub(crate) fn is_shown(&mut self, namespace: Option<u32>, name: &[u8], users: &mut Users) -> bool {
        while let Ok(Names { namespace, users }) = self.told.try_recv() {
            match users {
                Some(users) => self.users.insert(namespace, users),
                None => self.users.remove(&namespace),
            };
        }
        let is_user_there = |namespace: u32| {
            let key = (namespace, self.hash.of(name));
            self.proven.contains(&key)
                || self.users.get(&namespace).is_some_and(|users| users.contains(&key.1))
        };
        self.policy == UnknownUserNames::Show
            || namespace.is_some_and(is_user_there)
            || (namespace.is_none_or(|namespace| self.host.is_none_or(|host| host == namespace))
                && str::from_utf8(name).is_ok_and(|name| users.user_id(name).is_some()))
    }
}

/// The record with a flag in the place of the name.
fn withheld(record: &[u8]) -> Option<Vec<u8>> {
    let all = texts::texts(record).ok()?.all;
    let mut all = all.map(|(_, text)| Cow::Borrowed(text));
    // In the order of the record's spans the user is the second.
    if let Some(user) = all.get_mut(1) {
        *user = Cow::Borrowed(b"");
    }
    let (header, rest) = Header::read_from_prefix(record).ok()?;
    let (mut pam, tail) = Pam::read_from_prefix(rest).ok()?;
    pam.flags |= Pam::FLAG_WITHHELD;
    texts::with_texts(&[header.as_bytes(), pam.as_bytes(), tail].concat(), &all).ok()
}

#[cfg(test)]
mod tests {
    use tellwire_ebpf::wire::{Span, VERSION};
    use zerocopy::FromZeros as _;

    use super::*;

    const AT: usize = size_of::<Header>() + size_of::<Pam>();

    fn record(user: &str, call: Call, result: i32, namespace: u32) -> Vec<u8> {
        let mut header = Header::new_zeroed();
        (header.version, header.kind) = (VERSION, Kind::Pam as u8);
        let mut pam = Pam::new_zeroed();
        (pam.call, pam.result, pam.mount_namespace) = (call as u32, result, namespace);
        pam.user = Span { start: u32::try_from(AT).unwrap(), len: u32::try_from(user.len()).unwrap() };
        [header.as_bytes(), pam.as_bytes(), user.as_bytes(), b"leftover"].concat()
    }

    fn known(policy: UnknownUserNames) -> (KnownUsers, mpsc::Sender<Names>, NameHash, Users) {
        let etc = tempfile::tempdir().unwrap();
        std::fs::write(etc.path().join("passwd"), "ann:x:1000:1000::/:/bin/sh\n").unwrap();
        let mut users = Users::new(etc.path());
        // The folder goes with this function; what was read stays for the next ten seconds.
        assert_eq!(users.user_id("ann"), Some(1000));
        let (send, told) = mpsc::channel(4);
        let hash = NameHash::default();
        (KnownUsers::new(policy, Some(1), hash.clone(), told), send, hash, users)
    }

    fn shown(known: &mut KnownUsers, users: &mut Users, record: &[u8]) -> bool {
        let Some(screened) = known.screen(record, users) else { return true };
        let Ok((_, Event::Pam(pam))) = decode(&screened) else { panic!("no record") };
        assert!(pam.user.is_empty() && pam.wire.flags & Pam::FLAG_WITHHELD != 0);
        assert!(!screened.windows(6).any(|bytes| bytes == b"hunter" || bytes == b"leftov"));
        false
    }

    #[test]
    fn a_name_that_nobody_knows_is_taken_out() {
        let (mut known, send, hash, mut users) = known(UnknownUserNames::Withhold);
        let failed = |user, namespace| record(user, Call::Authenticate, 7, namespace);
        assert!(shown(&mut known, &mut users, &failed("ann", 1)));
        assert!(!shown(&mut known, &mut users, &failed("hunter2", 1)));
        // The host's users are not those of a container.
        assert!(!shown(&mut known, &mut users, &failed("ann", 2)));
        let names = FxHashSet::from_iter([hash.of(b"ann")]);
        send.try_send(Names { namespace: 2, users: Some(names) }).unwrap();
        assert!(shown(&mut known, &mut users, &failed("ann", 2)));
        send.try_send(Names { namespace: 2, users: None }).unwrap();
        assert!(!shown(&mut known, &mut users, &failed("ann", 2)));
    }

    #[test]
    fn a_name_that_has_succeeded_is_known() {
        let (mut known, _send, _, mut users) = known(UnknownUserNames::Withhold);
        let attempt = |result| record("ldap", Call::Authenticate, result, 1);
        assert!(!shown(&mut known, &mut users, &attempt(7)));
        assert!(shown(&mut known, &mut users, &attempt(0)));
        assert!(shown(&mut known, &mut users, &attempt(7)));
        assert!(!shown(&mut known, &mut users, &record("hunter2", Call::Chauthtok, 0, 1)));
    }

    #[test]
    fn a_reported_name_is_looked_for_where_it_was_tried() {
        let (mut known, send, hash, mut users) = known(UnknownUserNames::Withhold);
        let names = FxHashSet::from_iter([hash.of(b"bob")]);
        send.try_send(Names { namespace: 2, users: Some(names) }).unwrap();
        for (namespace, name, is_shown) in [
            (Some(1), "ann", true),
            (Some(1), "bob", false),
            (Some(2), "bob", true),
            (Some(2), "ann", false),
            // The process is gone: then only the host can be asked.
            (None, "ann", true),
            (None, "bob", false),
        ] {
            let shown = known.is_shown(namespace, name.as_bytes(), &mut users);
            assert_eq!(shown, is_shown, "{name} in {namespace:?}");
        }
    }

    #[test]
    fn everything_is_shown_where_that_is_asked_for() {
        let (mut known, _send, _, mut users) = known(UnknownUserNames::Show);
        assert!(shown(&mut known, &mut users, &record("hunter2", Call::Authenticate, 7, 1)));
    }
}
