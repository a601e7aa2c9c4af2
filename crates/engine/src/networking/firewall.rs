//! Bringing our firewall rules back when somebody takes them away.

use super::{Networking, failed, leases_of};
use crate::container::record::Lease;
use crate::engine::Engine;
use crate::error::Result;
use gamut_network::{Finding, FirewallWatch, Network};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A ruleset is flushed and loaded in many steps: long enough for these, short enough for users.
const PAUSE: Duration = Duration::from_millis(200);

impl Engine {
    /// Watches over the firewall, as long as the engine lives.
    pub(crate) fn watch_firewall(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        let watch = FirewallWatch::new(&self.networking.network);
        let thread = std::thread::Builder::new().name("firewall-watch".to_owned());
        let started = watch.map_err(|error| failed(&error)).and_then(|mut watch| {
            let watching = move || {
                while let Ok(()) = watch.wait() {
                    std::thread::sleep(PAUSE);
                    let Some(engine) = engine.upgrade() else {
                        return;
                    };
                    engine.mend_firewall();
                }
                tracing::error!("the firewall is not watched any more: rules that somebody flushes come back with `gamut system fsck --repair` only");
            };
            thread
                .spawn(watching)
                .map_err(|source| crate::error::Error::system("start a thread", source))
        });
        if let Err(error) = started {
            tracing::warn!(error = %error.full_message(), "the firewall is not watched: rules that somebody flushes come back with `gamut system fsck --repair` only");
        }
    }

    fn mend_firewall(&self) {
        let _still = self.networking.hold_still();
        let containers = self.index.all();
        let leases: Vec<_> = containers
            .iter()
            .flat_map(|container| container.read(leases_of))
            .collect();
        match self.networking.mend_firewall(&leases) {
            Ok(findings) => {
                for finding in findings {
                    tracing::warn!(%finding, "somebody took rules of ours away; they are back");
                }
            }
            Err(error) => {
                tracing::error!(error = %error.full_message(), "rules that somebody took away cannot be put back");
            }
        }
    }
}

impl Networking {
    /// Puts rules and published ports back. `leases` are those of all containers.
    fn mend_firewall(&self, leases: &[(String, Lease)]) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for live in self.all_bridged() {
            if let Some(mended) = live.while_in_force(Network::reconcile_rules) {
                findings.extend(mended.map_err(|error| failed(&error))?);
            }
        }
        if !findings.is_empty() {
            let ids: BTreeSet<String> = leases.iter().map(|(id, _)| id.clone()).collect();
            let published = self.ports.reconcile(&ids);
            findings.extend(published.map_err(|error| failed(&error))?);
        }
        Ok(findings)
    }
}
