//! Which events make lines: the profile, and `--types` over it.

use crate::{
    config::{Agent, Profile},
    events::action::Action,
};

/// Why an event makes no line. What is left out is counted by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// `agent.types` names others.
    Types = 0,
    /// The profile does without it.
    Profile = 1,
    /// It is told together with others of its kind.
    Folded = 2,
    /// A rule drops it, or samples and took others.
    Rule = 3,
}

impl LeftOut {
    pub(crate) const ALL: [Self; 4] = [Self::Types, Self::Profile, Self::Folded, Self::Rule];

    /// The name in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Types => "types",
            Self::Profile => "profile",
            Self::Folded => "folded",
            Self::Rule => "rule",
        }
    }
}

/// What is chosen.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) profile: Profile,
    /// By action.
    left_out: [Option<LeftOut>; Action::COUNT],
    /// Calls that change nothing, and succeed, are left out.
    is_unchanged_left_out: bool,
}

/// What the profile `default` does without: what execs and connects tell the more important part of.
const DISPENSABLE: [Action; 3] = [Action::Exit, Action::Close, Action::PamSetcred];

impl Selection {
    pub(crate) fn new(agent: &Agent) -> Self {
        let Agent { profile, types, .. } = agent;
        let is_full = *profile == Profile::Full;
        let mut left_out = [None; Action::COUNT];
        for (left_out, action) in left_out.iter_mut().zip(Action::ALL) {
            let is_named = types.iter().any(|name| name == action.name());
            *left_out = match (types.is_empty(), is_named) {
                (false, false) => Some(LeftOut::Types),
                (true, _) if !is_full && DISPENSABLE.contains(action) => Some(LeftOut::Profile),
                _ => None,
            };
        }
        Self { profile: *profile, left_out, is_unchanged_left_out: !is_full && types.is_empty() }
    }

    /// Everything that the profile has.
    #[cfg(test)]
    pub(crate) fn of(profile: Profile) -> Self {
        Self::new(&Agent { profile, ..Agent::default() })
    }

    /// Why the action makes no line; `None` where it does.
    pub(crate) fn left_out(&self, action: Action) -> Option<LeftOut> {
        self.left_out.get(action as usize).copied().flatten()
    }

    /// The same of a credential call that changed nothing.
    pub(crate) fn unchanged_left_out(&self) -> Option<LeftOut> {
        self.is_unchanged_left_out.then_some(LeftOut::Profile)
    }

    /// Why the end of a process makes no line that is the only sign of a refusal.
    pub(crate) fn refusal_left_out(&self) -> Option<LeftOut> {
        self.left_out(Action::Exit).filter(|why| *why != LeftOut::Profile)
    }

    /// Why a report makes no line that nobody would miss: one of several of a login that went well.
    pub(crate) fn routine_left_out(&self, action: Action) -> Option<LeftOut> {
        self.left_out(action).or(self.is_unchanged_left_out.then_some(LeftOut::Profile))
    }

    /// Whether connects that repeat are told together.
    pub(crate) fn folds(&self) -> bool {
        self.profile == Profile::Default && self.left_out(Action::Connect).is_none()
    }

    /// Whether lines, or what is told together, need to know of the end of connections.
    pub(crate) fn needs_close(&self) -> bool {
        self.folds() || self.left_out(Action::Close).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(profile: Profile, types: &[&str]) -> Selection {
        let types = types.iter().map(ToString::to_string).collect();
        Selection::new(&Agent { profile, types, ..Agent::default() })
    }

    #[test]
    fn the_default_profile_does_without_what_is_told_elsewhere() {
        let selection = selection(Profile::Default, &[]);
        assert_eq!(selection.left_out(Action::Exec), None);
        assert_eq!(selection.left_out(Action::Exit), Some(LeftOut::Profile));
        assert_eq!(selection.refusal_left_out(), None);
        assert!(selection.folds() && selection.needs_close());
    }

    #[test]
    fn the_full_profile_has_everything() {
        let selection = selection(Profile::Full, &[]);
        assert!(Action::ALL.iter().all(|action| selection.left_out(*action).is_none()));
        assert!(!selection.folds() && selection.needs_close());
        assert_eq!(selection.unchanged_left_out(), None);
    }

    #[test]
    fn a_type_that_is_named_is_told_in_any_profile_and_no_other() {
        let selection = selection(Profile::Default, &["exit"]);
        assert_eq!(selection.left_out(Action::Exit), None);
        assert_eq!(selection.left_out(Action::Exec), Some(LeftOut::Types));
        assert!(!selection.folds() && !selection.needs_close());
        assert_eq!(self::selection(Profile::Default, &["exec"]).refusal_left_out(), Some(LeftOut::Types));
    }
}
