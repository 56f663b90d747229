//! Rules by their meaning: whatever is indexed or done in the kernel must come to the same as asking rule by rule.

use std::{fmt::Write as _, sync::Arc};

use proptest::prelude::*;
use tellwire_ebpf::filter::{Mask, SLOTS};

use super::{
    Facts, Marks, RuleBooks, Rules, Sampled, Verdict, chosen,
    facts::{Outcome, What},
    plan,
    spec::{Effect, Spec, is_id},
    specs,
};
use crate::{
    config::{Rule, UserSpec},
    events::action::Action,
};

const ID: &str = "04fa7377143cd0256f28cfa588020589290e40a8f622c50ee63112281ebe537d";

#[derive(serde::Deserialize)]
struct File {
    rules: Vec<Rule>,
}

fn rules(toml: &str) -> Vec<Rule> {
    toml::from_str::<File>(toml).unwrap().rules
}

fn at_work(toml: &str) -> (Rules, RuleBooks) {
    let books = RuleBooks::default();
    (Rules::new(&rules(toml), &books).unwrap(), books)
}

fn facts(what: What) -> Facts<'static> {
    Facts {
        what,
        executable: None,
        args: None,
        uid: 0,
        user_name: None,
        container: None,
        container_name: None,
        namespace: None,
        image: None,
    }
}

fn connect_to(address: &str, port: u16) -> Facts<'static> {
    let address = match address.parse().unwrap() {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped(),
        std::net::IpAddr::V6(address) => address,
    };
    let destination = Some((address.to_bits(), port));
    facts(What { action: Action::Connect, outcome: Some(Outcome::Success), destination })
}

/// An event by value, as a strategy makes it.
#[derive(Clone, Debug)]
struct Made {
    what: What,
    executable: Option<String>,
    line: String,
    uid: u32,
    user_name: Option<Arc<str>>,
    container: Option<String>,
    namespace: Option<String>,
    image: Option<String>,
}

impl Made {
    fn with<T>(&self, then: impl FnOnce(&Facts<'_>) -> T) -> T {
        let args = |line: &mut String| line.push_str(&self.line);
        then(&Facts {
            what: self.what,
            executable: self.executable.as_deref(),
            args: (self.what.action == Action::Exec).then_some(&args),
            uid: self.uid,
            user_name: self.user_name.clone(),
            container: self.container.as_deref(),
            container_name: None,
            namespace: self.namespace.as_deref(),
            image: self.image.as_deref(),
        })
    }
}

/// One rule asked by itself.
fn matches(spec: &Spec, made: &Made) -> bool {
    let any = |empty: bool, holds: bool| empty || holds;
    let glob = |globs: &[globset::Glob], text: Option<&String>| {
        any(
            globs.is_empty(),
            text.is_some_and(|text| globs.iter().any(|glob| glob.compile_matcher().is_match(text))),
        )
    };
    let user = |user: &UserSpec| match user {
        UserSpec::Id(id) => *id == made.uid,
        UserSpec::Name(name) => made.user_name.as_deref() == Some(name),
    };
    let container = |asked: &String| {
        made.container
            .as_ref()
            .is_some_and(|id| if is_id(asked) { id.starts_with(asked.as_str()) } else { id == asked })
    };
    let (address, port) = made.what.destination.unzip();
    spec.can_match(made.what.action)
        && spec.allows(made.what.outcome)
        && glob(&spec.executables, made.executable.as_ref())
        && glob(&spec.namespaces, made.namespace.as_ref())
        && glob(&spec.images, made.image.as_ref())
        && any(
            spec.args.is_empty(),
            made.what.action == Action::Exec && spec.args.iter().any(|regex| regex.is_match(&made.line)),
        )
        && any(spec.users.is_empty(), spec.users.iter().any(user))
        && any(spec.containers.is_empty(), spec.containers.iter().any(container))
        && any(
            spec.destinations.is_empty(),
            address.is_some_and(|address| spec.destinations.iter().any(|network| network.contains(address))),
        )
        && any(
            spec.ports.is_empty(),
            port.is_some_and(|port| {
                spec.ports.iter().any(|ports| (ports.first..=ports.last).contains(&port))
            }),
        )
}

/// The first rule that decides, and the tags of those before it.
fn decided<'a>(specs: &'a [Spec], made: &Made) -> (Option<usize>, Vec<&'a Arc<str>>) {
    let mut tags: Vec<&Arc<str>> = Vec::new();
    for (number, spec) in specs.iter().enumerate().filter(|(_, spec)| matches(spec, made)) {
        match &spec.effect {
            Effect::Tag(more) => {
                for tag in more {
                    if !tags.contains(&tag) {
                        tags.push(tag);
                    }
                }
            }
            _ => return (Some(number), tags),
        }
    }
    (None, tags)
}

/// What the kernel's program does with these tables: the rule that drops.
fn in_kernel(specs: &[Spec], made: &Made) -> Option<usize> {
    let (mut table, _) = plan(specs);
    let filter = table.filter;
    let mut hit = match made.what.action {
        Action::Connect => filter.connect,
        Action::ExecFailed => filter.exec_failed,
        _ => return None,
    };
    let mut narrow = |any: &Mask, found: Option<Mask>| {
        for ((hit, any), found) in hit.iter_mut().zip(any).zip(found.unwrap_or_default()) {
            *hit &= any | found;
        }
    };
    let find = |users: &[(u32, Mask)]| users.iter().find(|(uid, _)| *uid == made.uid).map(|(_, mask)| *mask);
    narrow(&filter.any_user, find(&table.users));
    narrow(&filter.any_container, made.container.as_ref().and_then(|id| table.container(id)));
    if let Some((address, port)) = made.what.destination {
        narrow(&filter.outcomes[made.what.outcome.unwrap() as usize], None);
        // The longest prefix, whatever family it is of: the kernel knows bits only.
        let longest = table
            .destinations
            .iter()
            .filter(|(network, _)| super::tables::tests::begins(address, *network))
            .max_by_key(|(network, _)| network.bits);
        narrow(&filter.any_destination, longest.map(|(_, mask)| *mask));
        let longest = table
            .ports
            .iter()
            .filter(|(first, bits, _)| *bits == 0 || (port ^ first) >> (16 - bits) == 0)
            .max_by_key(|(_, bits, _)| *bits);
        narrow(&filter.any_port, longest.map(|(_, _, mask)| *mask));
    }
    let slot = (0..SLOTS).find(|slot| hit[slot / 64] >> (slot % 64) & 1 == 1)?;
    (filter.drops[slot / 64] >> (slot % 64) & 1 == 1).then(|| table.slots[slot])
}

fn some_of(values: &'static [&'static str]) -> impl Strategy<Value = Option<Vec<String>>> {
    let list = prop::collection::vec(prop::sample::select(values), 1..3);
    prop::option::weighted(0.3, list.prop_map(|list| list.into_iter().map(str::to_owned).collect()))
}

/// The text of a rule whose conditions meet those of the events often.
fn some_rule() -> impl Strategy<Value = String> {
    let effect = prop::sample::select(
        &[
            "effect = 'drop'\neven-authentication-failures = true\n",
            "effect = 'keep'\n",
            "effect = 'sample'\none-in = 3\neven-authentication-failures = true\n",
            "effect = 'tag'\ntags = ['a', 'b']\n",
        ][..],
    );
    let lists = (
        some_of(&["exec", "connect", "exec_failed", "setuid", "exit"]),
        some_of(&["/bin/*", "/opt/**/x", "/bin/sh", "**/curl"]),
        some_of(&["-v", "^sh -c", "[0-9]+$", "a.*b"]),
        some_of(&["0", "33", "web", "root"]),
        some_of(&["web-1", "04fa7377143c", "04fa7377143cd0256f28cfa588020589"]),
        some_of(&["pay*", "kube-system"]),
        some_of(&["**/nginx:*"]),
        some_of(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "0.0.0.0/0",
            "::/0",
            "2001:db8::/32",
            "10.1.2.3",
            "::fffe:0:0/95",
        ]),
        some_of(&["443", "1-1024", "8000-8999", "1-65535", "65535"]),
        some_of(&["success", "failure", "unknown"]),
    );
    (effect, lists).prop_map(|(effect, lists)| {
        let mut text = effect.to_owned();
        let keys = [
            ("actions", lists.0),
            ("executables", lists.1),
            ("args", lists.2),
            ("users", lists.3),
            ("containers", lists.4),
            ("namespaces", lists.5),
            ("images", lists.6),
            ("destinations", lists.7),
            ("ports", lists.8),
            ("outcomes", lists.9),
        ];
        for (key, list) in keys {
            if let Some(list) = list {
                writeln!(text, "{key} = {list:?}").unwrap();
            }
        }
        text
    })
}

/// Rules that make sense together: those that do not are left out.
fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(some_rule(), 0..12).prop_map(|texts| {
        let mut taken = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            taken.extend(rules(&format!("[[rules]]\nname = \"r{number}\"\n{text}")));
            if specs(&taken).is_err() {
                taken.pop();
            }
        }
        taken
    })
}

fn some_event() -> impl Strategy<Value = Made> {
    let action = prop::sample::select(
        &[Action::Exec, Action::Connect, Action::Connect, Action::ExecFailed, Action::Setuid, Action::Exit][..],
    );
    let outcome = prop::sample::select(&[Outcome::Success, Outcome::Failure, Outcome::Unknown][..]);
    let address = prop::sample::select(
        &[
            "::ffff:10.1.2.3",
            "::ffff:10.1.9.9",
            "::ffff:10.9.9.9",
            "::ffff:1.1.1.1",
            "2001:db8::1",
            "fe80::1",
        ][..],
    );
    let port = prop::sample::select(&[443, 1, 8000, 8500, 8999, 9000, 65535_u16][..]);
    let executable = prop::option::of(prop::sample::select(&["/bin/sh", "/opt/a/b/x", "/usr/bin/curl"][..]));
    let line = prop::sample::select(&["sh -c true", "curl -v a://b", "x 99", ""][..]);
    let user = prop::sample::select(&[(0, Some("root")), (33, Some("web")), (1000, None)][..]);
    let container = prop::option::of(prop::sample::select(&["web-1", ID, "04fa7377143cffff"][..]));
    let namespace = prop::option::of(prop::sample::select(&["payments", "kube-system", "default"][..]));
    let image = prop::option::of(prop::sample::select(&["registry/nginx:1", "registry/app:2"][..]));
    (action, outcome, address, port, executable, line, user, container, namespace, image).prop_map(
        |(
            action,
            outcome,
            address,
            port,
            executable,
            line,
            (uid, user_name),
            container,
            namespace,
            image,
        )| {
            let outcome = match action {
                Action::Exit => None,
                Action::Exec => Some(Outcome::Success),
                Action::ExecFailed => Some(Outcome::Failure),
                _ => Some(outcome),
            };
            let address = address.parse::<std::net::Ipv6Addr>().unwrap().to_bits();
            let destination = (action == Action::Connect).then_some((address, port));
            Made {
                what: What { action, outcome, destination },
                executable: executable.map(str::to_owned),
                line: line.to_owned(),
                uid,
                user_name: user_name.map(Arc::from),
                container: container.map(str::to_owned),
                namespace: namespace.map(str::to_owned),
                image: image.map(str::to_owned),
            }
        },
    )
}

proptest! {
    #[test]
    fn all_rules_at_once_are_the_rules_one_by_one(
        rules in some_rules(),
        events in prop::collection::vec(some_event(), 1..20),
    ) {
        let specs = specs(&rules).unwrap();
        let mut at_work = Rules::new(&rules, &RuleBooks::default()).unwrap();
        let mut numbers = vec![0; specs.len()];
        for made in &events {
            let (rule, tags) = decided(&specs, made);
            let mut sampled = None;
            let expected = match rule.map(|rule| (rule, &specs[rule])) {
                Some((_, Spec { effect: Effect::Drop, .. })) => Verdict::LeftOut,
                Some((rule, Spec { effect: Effect::Sample(one_in), name, .. })) => {
                    let is_chosen = chosen(name, numbers[rule], *one_in);
                    numbers[rule] += 1;
                    sampled = Some(Sampled { rule: Arc::clone(name), one_in: *one_in });
                    if is_chosen { Verdict::Line(Marks::default()) } else { Verdict::LeftOut }
                }
                _ => Verdict::Line(Marks::default()),
            };
            let expected = match expected {
                Verdict::Line(_) => {
                    Verdict::Line(Marks { tags: tags.into_iter().map(Arc::clone).collect(), sampled })
                }
                Verdict::LeftOut => Verdict::LeftOut,
            };
            prop_assert_eq!(made.with(|facts| at_work.judge(facts)), expected);
        }
    }

    #[test]
    fn what_the_kernel_drops_is_what_the_agent_would_have_dropped(
        rules in some_rules(),
        events in prop::collection::vec(some_event(), 1..20),
    ) {
        let specs = specs(&rules).unwrap();
        for made in &events {
            if let Some(dropped) = in_kernel(&specs, made) {
                prop_assert_eq!(decided(&specs, made).0, Some(dropped));
                prop_assert_eq!(&specs[dropped].effect, &Effect::Drop);
            }
        }
    }

    #[test]
    fn one_of_each_group_is_chosen(one_in in 2_u64..200, groups in 1_u64..20) {
        let one = u32::try_from(one_in).unwrap();
        for group in 0..groups {
            let in_group = (group * one_in..(group + 1) * one_in).filter(|number| chosen("r", *number, one));
            prop_assert_eq!(in_group.count(), 1);
        }
    }
}

#[test]
fn a_sample_is_fair_to_events_that_come_in_turns() {
    // Two in turns, sampled one in two: neither may have it all.
    let chosen = (0..2000).filter(|number| chosen("r", *number, 2) && number % 2 == 0).count();
    assert!((400..600).contains(&chosen), "{chosen}");
}

#[test]
fn the_first_rule_that_decides_does() {
    let (mut rules, books) = at_work(
        "[[rules]]\nname = 'mark'\neffect = 'tag'\ntags = ['db']\nports = [5432]\n\
         [[rules]]\nname = 'but'\neffect = 'keep'\ndestinations = ['10.0.0.7']\n\
         [[rules]]\nname = 'ten'\neffect = 'drop'\ndestinations = ['10.0.0.0/8']\n",
    );
    let marked = Verdict::Line(Marks { tags: vec!["db".into()], sampled: None });
    assert_eq!(rules.judge(&connect_to("10.0.0.7", 5432)), marked);
    assert_eq!(rules.judge(&connect_to("10.0.0.8", 5432)), Verdict::LeftOut);
    assert_eq!(rules.judge(&connect_to("192.0.2.1", 443)), Verdict::Line(Marks::default()));
    let counted: Vec<_> = books.current().iter().flat_map(|rule| rule.effects()).collect();
    // The tag of an event without a line counts for nothing.
    assert_eq!(counted, [("tag", 1), ("keep", 1), ("drop", 1)]);
}

#[test]
fn what_is_not_known_matches_nothing() {
    let (mut rules, _books) = at_work(
        "[[rules]]\nname = 'a'\neffect = 'drop'\nactions = ['connect']\nnamespaces = ['**']\n\
         [[rules]]\nname = 'b'\neffect = 'drop'\nactions = ['connect']\nimages = ['**']\n\
         [[rules]]\nname = 'c'\neffect = 'drop'\nactions = ['connect']\nexecutables = ['**']\n",
    );
    assert_eq!(rules.judge(&connect_to("10.0.0.7", 5432)), Verdict::Line(Marks::default()));
}

#[test]
fn rules_that_come_again_go_on_counting() {
    let drop = "[[rules]]\nname = 'ten'\neffect = 'drop'\ndestinations = ['10.0.0.0/8']\n";
    let (mut before, books) = at_work(drop);
    before.judge(&connect_to("10.0.0.7", 1));
    let more = format!("[[rules]]\nname = 'new'\neffect = 'keep'\nports = [7]\n{drop}");
    let mut after = Rules::new(&rules(&more), &books).unwrap();
    after.judge(&connect_to("10.0.0.7", 1));
    let counted: Vec<_> =
        books.current().iter().map(|rule| (rule.name().to_owned(), rule.effects())).collect();
    assert_eq!(counted, [("new".into(), vec![("keep", 0)]), ("ten".into(), vec![("drop", 2)])]);
}

#[test]
fn each_rule_says_where_it_is_judged() {
    let specs = specs(&rules(
        "[[rules]]\nname = 'uid'\neffect = 'drop'\nactions = ['connect']\nusers = [33]\n\
         [[rules]]\nname = 'name'\neffect = 'drop'\nactions = ['connect']\nusers = ['web']\n\
         [[rules]]\nname = 'keep'\neffect = 'keep'\nports = [443]\n\
         [[rules]]\nname = 'ten'\neffect = 'drop'\ndestinations = ['10.0.0.0/8']\n\
         [[rules]]\nname = 'exec'\neffect = 'drop'\nactions = ['exec']\nusers = [33]\n",
    ))
    .unwrap();
    let placed: Vec<_> = plan(&specs).1.iter().map(|placed| format!("{}: {placed}", placed.rule)).collect();
    assert_eq!(
        placed,
        [
            "uid: in the kernel for connect: all its conditions are known there",
            "name: in the agent: the kernel does not know users by name (write their numbers)",
            "keep: in the agent: only drop is done in the kernel",
            "ten: in the agent: rule name before it is judged there, and may match the same events: move it up",
            "exec: in the agent: its process table needs these records; only connect and exec_failed are dropped before",
        ]
    );
}

#[test]
fn the_examples_of_the_manual_make_sense() {
    let manual = include_str!("../../../docs/rules.md");
    let blocks = manual.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let examples: Vec<_> = blocks.filter(|block| block.contains("[[rules]]")).collect();
    assert!(examples.len() > 4);
    for example in examples {
        assert!(specs(&rules(example)).is_ok(), "{example}\n{:?}", specs(&rules(example)));
    }
}
