//! flows

use serde_json::{Value, json};
use tellwire_tests::{at, auditing::Auditing, terminal};

use crate::{ALICE, WRONG};

#[test]
fn try_su() {
    let _auditing = Auditing::on();
    let (agent, private, _folder) = crate::agent("", || {});
    let child = private.fork(&agent, || terminal::run(&["/usr/bin/su", "-c", "id", ALICE.name], &[], || {}));
    println!("{}", child.join());
    let child = private.fork(&agent, || {
        terminal::run(&["/usr/bin/su", "-c", "id"], &[("assword:", WRONG)], || {
            tellwire_tests::sys::become_user(ALICE.id)
        })
    });
    println!("{}", child.join());
    agent.expect(None, "user_auth", &json!({"event.outcome": "failure"}));
    for event in agent.events() {
        if at(&event, "tellwire.audit").is_some() {
            println!("{event}");
        }
    }
    let _: Option<Value> = None;
}
