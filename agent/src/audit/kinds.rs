//! Types of audit records that tell of authentication, sessions and accounts, and the action of each.

use crate::events::action::Action;

/// A type of record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The message's type in netlink.
    pub(crate) number: u16,
    /// As auditd writes it.
    pub(crate) name: &'static str,
    pub(crate) action: Action,
}

macro_rules! kinds {
    ($($number:literal $name:literal => $action:ident;)*) => {
        /// Numbers and meanings from libaudit.h of audit 3.0.9 and 4.0.2 (audit-records.h there), `LOGIN` from
        /// include/uapi/linux/audit.h (v6.18). `USER_AVC`, `CRYPTO_KEY_USER` and the like tell of other things.
        const KINDS: &[Kind] = &[$(Kind { number: $number, name: $name, action: Action::$action }),*];
    };
}

kinds! {
    1006 "LOGIN" => LoginUidSet;
    1100 "USER_AUTH" => UserAuth;
    1101 "USER_ACCT" => UserAccount;
    1102 "USER_MGMT" => UserChanged;
    1103 "CRED_ACQ" => CredentialsAcquired;
    1104 "CRED_DISP" => CredentialsDisposed;
    1105 "USER_START" => UserSessionStart;
    1106 "USER_END" => UserSessionEnd;
    1108 "USER_CHAUTHTOK" => UserPasswordChanged;
    1109 "USER_ERR" => UserError;
    1110 "CRED_REFR" => CredentialsRefreshed;
    1112 "USER_LOGIN" => UserLogin;
    1113 "USER_LOGOUT" => UserLogout;
    1114 "ADD_USER" => AccountAdded;
    1115 "DEL_USER" => AccountDeleted;
    1116 "ADD_GROUP" => GroupAdded;
    1117 "DEL_GROUP" => GroupDeleted;
    1119 "CHGRP_ID" => GroupChanged;
    1123 "USER_CMD" => UserCommand;
    1125 "CHUSER_ID" => UserChanged;
    1126 "GRP_AUTH" => GroupAuth;
    1132 "GRP_MGMT" => GroupChanged;
    1133 "GRP_CHAUTHTOK" => GroupChanged;
    1135 "ACCT_LOCK" => AccountLocked;
    1136 "ACCT_UNLOCK" => AccountUnlocked;
    2100 "ANOM_LOGIN_FAILURES" => LoginAnomaly;
    2101 "ANOM_LOGIN_TIME" => LoginAnomaly;
    2102 "ANOM_LOGIN_SESSIONS" => LoginAnomaly;
    2103 "ANOM_LOGIN_ACCT" => LoginAnomaly;
    2104 "ANOM_LOGIN_LOCATION" => LoginAnomaly;
    2118 "ANOM_LOGIN_SERVICE" => LoginAnomaly;
    2119 "ANOM_LOGIN_ROOT" => LoginAnomaly;
    2205 "RESP_ACCT_LOCK_TIMED" => AccountLocked;
    2206 "RESP_ACCT_UNLOCK_TIMED" => AccountUnlocked;
    2207 "RESP_ACCT_LOCK" => AccountLocked;
    2300 "USER_ROLE_CHANGE" => RoleChanged;
    2301 "ROLE_ASSIGN" => RoleChanged;
    2302 "ROLE_REMOVE" => RoleChanged;
    2311 "ROLE_MODIFY" => RoleChanged;
}

/// The one record of these types that the kernel itself writes.
pub(crate) const LOGIN: u16 = 1006;

/// What gpasswd writes of a group's members: see `Message::is_of_gpasswd`.
pub(super) const GROUP_BY_GPASSWD: Kind =
    Kind { number: 1101, name: "USER_ACCT", action: Action::GroupChanged };

impl Kind {
    /// Whether it is about a group rather than a user.
    pub(crate) fn is_about_group(&self) -> bool {
        matches!(self.action, Action::GroupAdded | Action::GroupDeleted | Action::GroupChanged)
    }

    /// By its number; `None` for what tells of other things.
    pub(crate) fn of(number: u16) -> Option<&'static Self> {
        KINDS.binary_search_by_key(&number, |kind| kind.number).ok().and_then(|index| KINDS.get(index))
    }

    /// The commonest is told once for each login, and what it says goes without saying where it went well.
    pub(crate) fn is_routine(&self) -> bool {
        matches!(
            self.action,
            Action::UserAccount
                | Action::CredentialsAcquired
                | Action::CredentialsDisposed
                | Action::CredentialsRefreshed
                | Action::LoginUidSet
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{KINDS, Kind};

    #[test]
    fn a_type_is_found_by_its_number_and_no_other_is() {
        assert!(KINDS.is_sorted_by_key(|kind| kind.number));
        for kind in KINDS {
            assert_eq!(Kind::of(kind.number), Some(kind));
        }
        // USER_AVC, CRYPTO_KEY_USER, SYSCALL, NLMSG_ERROR.
        for other in [1107, 2404, 1300, 2] {
            assert_eq!(Kind::of(other), None);
        }
    }
}
