//! What the configuration means for the parts: which actions make lines, and what the kernel side is told.

use tellwire_ebpf::wire::{Kind, Ring};

use crate::{config::Config, events::action::Action, kernel::options::Options};

const _: () = assert!(Action::COUNT <= crate::outputs::ACTIONS, "raise ACTIONS");

/// By action: whether it makes a line.
pub(super) fn wanted(config: &Config) -> [bool; Action::COUNT] {
    let mut wanted = [true; Action::COUNT];
    if !config.agent.types.is_empty() {
        for (wanted, action) in wanted.iter_mut().zip(Action::ALL) {
            *wanted = config.agent.types.iter().any(|name| name == action.name());
        }
    }
    wanted
}

/// The kernel side of the configuration.
pub(super) fn options(config: &Config, wanted: &[bool; Action::COUNT]) -> Options {
    let is_wanted = |action: Action| wanted.get(action as usize).copied().unwrap_or(true);
    let mut kinds = u32::MAX;
    // The tables live on the other kinds, whether they make lines or not. Credential calls explain changed ids.
    for (kind, action) in [(Kind::ExecFailed, Action::ExecFailed), (Kind::Connect, Action::Connect)] {
        if !is_wanted(action) {
            kinds &= !(1 << kind as u32);
        }
    }
    let kernel = &config.kernel;
    let mut throttle = Ring::ALL.iter().map(|ring| match ring {
        Ring::Urgent => kernel.throttle_urgent.get(),
        Ring::Process => kernel.throttle_process.get(),
        Ring::Network => kernel.throttle_network.get(),
    });
    Options {
        ring_bytes: kernel.ring_bytes.get(),
        args_bytes: kernel.args_bytes.get(),
        pending_connects: kernel.pending_connects.get(),
        cgroup_counters: kernel.cgroup_counters.get(),
        throttle: std::array::from_fn(|_| throttle.next().unwrap_or(0)),
        kinds,
        function_hooks: kernel.function_hooks,
        log_level: kernel.log as u8,
    }
}
