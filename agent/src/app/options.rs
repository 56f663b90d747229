//! What the configuration means for the kernel side.

use tellwire_ebpf::wire::{Kind, Ring};

use crate::{config::Config, events::action::Action, kernel::options::Options, pipeline::Selection};

const _: () = assert!(Action::COUNT <= crate::outputs::ACTIONS, "raise ACTIONS");

/// The kernel side of the configuration.
pub(super) fn options(config: &Config, selection: &Selection) -> Options {
    let is_told = |action: Action| selection.left_out(action).is_none();
    let is_any_told = |actions: &[Action]| actions.iter().any(|action| is_told(*action));
    let mut kinds = u32::MAX;
    // The tables live on the other kinds, whether they make lines or not. Credential calls explain changed ids.
    for (kind, is_needed) in [
        (Kind::ExecFailed, is_told(Action::ExecFailed)),
        (Kind::Connect, is_told(Action::Connect)),
        (Kind::Close, selection.needs_close()),
        (
            Kind::Pam,
            is_any_told(&[
                Action::PamAuthenticate,
                Action::PamAccount,
                Action::PamSetcred,
                Action::PamSessionOpen,
                Action::PamSessionClose,
                Action::PamChauthtok,
            ]),
        ),
    ] {
        if !is_needed {
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
        open_connections: kernel.open_connections.get(),
        cgroup_counters: kernel.cgroup_counters.get(),
        throttle: std::array::from_fn(|_| throttle.next().unwrap_or(0)),
        kinds,
        function_hooks: kernel.function_hooks,
        pam: config.auth.pam,
        log_level: kernel.log as u8,
    }
}
