//! Looking after a running container.

use super::check::{Healthcheck, Test};
use super::probe;
use super::record::{Health, ProbeResult};
use crate::container::live::Container;
use crate::engine::Engine;
use gamut_spec::time;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Engine {
    /// Begins to look after a container that runs, if it has a health check; goes on with what is
    /// on record of its health. Ends with [`Container::end_monitor`].
    pub(crate) fn look_after(self: &Arc<Self>, container: &Arc<Container>) {
        let Some(check) = container.read(|record| record.spec.healthcheck.clone()) else {
            return;
        };
        let Ok(Some(test)) = check.test() else {
            return;
        };
        let (engine, monitored) = (Arc::clone(self), Arc::clone(container));
        container.begin_monitor(|number| {
            self.runtime
                .spawn(probe_again(engine, monitored, number, check, test))
                .abort_handle()
        });
    }

    /// Takes in the result of a probe. False if the monitor that made it has ended meanwhile.
    fn note_probe(
        &self,
        container: &Container,
        number: u64,
        result: ProbeResult,
        check: &Healthcheck,
    ) -> bool {
        let mut changed = None;
        let mut is_current = false;
        container.settle_health(&self.store, |record| {
            is_current = container.is_monitor(number);
            if !is_current {
                return false;
            }
            let started_ns = record.state.started_ns;
            let health = record.state.health.get_or_insert_default();
            let has_changed = health.note(result, check, started_ns);
            changed = has_changed.then_some(health.status);
            has_changed
        });
        if let Some(status) = changed {
            let action = format!("health_status: {}", status.as_str());
            self.emit_container(container, &action, BTreeMap::new());
            container.announce(|life| life.health = Some(status));
        }
        is_current
    }
}

async fn probe_again(
    engine: Arc<Engine>,
    container: Arc<Container>,
    number: u64,
    check: Healthcheck,
    test: Test,
) {
    let check = Arc::new(check);
    loop {
        let pause = container.read(|record| {
            let health = record.state.health.clone();
            health.unwrap_or_else(Health::default).pause(
                &check,
                record.state.started_ns,
                time::now_ns(),
            )
        });
        tokio::time::sleep(pause).await;
        let result = probe::run(&engine, &container, &check, &test).await;
        let (engine, container) = (Arc::clone(&engine), Arc::clone(&container));
        let check = Arc::clone(&check);
        // A change is written to disk.
        let noted = tokio::task::spawn_blocking(move || {
            engine.note_probe(&container, number, result, &check)
        });
        if !noted.await.unwrap_or(false) {
            return;
        }
    }
}
