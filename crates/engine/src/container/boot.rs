//! Starting again what should run when the engine is opened: each container after what it depends
//! on, everything else at once.

use super::dependency::{Condition, break_circles, dependencies};
use super::live::Container;
use super::record::{ContainerRecord, Phase};
use super::spec::RestartPolicy;
use crate::engine::{Caller, Engine};
use crate::health::HealthStatus;
use gamut_spec::error::ErrorKind;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// Starts at once, at least; the network and the disk are shared by all.
const FEWEST_AT_ONCE: usize = 4;

/// What a start waits for.
struct Need {
    container: Arc<Container>,
    condition: Condition,
    /// Set once its own start has been tried, if it is started here as well.
    tried: Option<watch::Receiver<bool>>,
}

impl Engine {
    /// Starts what should run, without keeping the API waiting.
    pub(crate) fn start_wanted(self: &Arc<Self>, wanted: &[Arc<Container>]) {
        if wanted.is_empty() {
            return;
        }
        let mut everyone = self.index.all();
        everyone.sort_by_key(|container| container.read(|record| record.created_ns));
        let records: Vec<ContainerRecord> = everyone.iter().map(|one| one.record()).collect();
        let is_wanted = |one: &Arc<Container>| wanted.iter().any(|other| other.id == one.id);
        let mut edges: Vec<Vec<(usize, Condition)>> = everyone
            .iter()
            .zip(&records)
            .map(|(one, record)| {
                if is_wanted(one) {
                    dependencies(record, &records)
                } else {
                    Vec::new()
                }
            })
            .collect();
        for (from, to) in break_circles(&mut edges) {
            tracing::warn!(container = %records[from].name, dependency = %records[to].name, "containers depend on each other in a circle: started without waiting");
        }
        let tries: Vec<Option<watch::Sender<bool>>> = everyone
            .iter()
            .map(|one| is_wanted(one).then(|| watch::Sender::new(false)))
            .collect();
        let needs: Vec<Vec<Need>> = edges
            .into_iter()
            .map(|edges| {
                edges
                    .into_iter()
                    .map(|(to, condition)| Need {
                        container: Arc::clone(&everyone[to]),
                        condition,
                        tried: tries[to].as_ref().map(watch::Sender::subscribe),
                    })
                    .collect()
            })
            .collect();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let permits = Arc::new(Semaphore::new(FEWEST_AT_ONCE.max(cores * 2)));
        for ((container, needs), tried) in everyone.into_iter().zip(needs).zip(tries) {
            if let Some(tried) = tried {
                let (engine, permits) = (Arc::clone(self), Arc::clone(&permits));
                self.runtime.spawn(async move {
                    start_in_turn(engine, container, needs, permits).await;
                    tried.send_replace(true);
                });
            }
        }
    }
}

async fn start_in_turn(
    engine: Arc<Engine>,
    container: Arc<Container>,
    needs: Vec<Need>,
    permits: Arc<Semaphore>,
) {
    let was_wanted = container.read(|record| record.should_run);
    for need in needs {
        need.wait(&container).await;
    }
    // Never closed.
    let _permit = permits.acquire().await;
    let blocking = tokio::task::spawn_blocking(move || {
        // A user may have had a word meanwhile.
        let is_stopped = was_wanted && !container.read(|record| record.should_run);
        if is_stopped || container.life().borrow().removed {
            return;
        }
        let caller = Caller::engine("restart policy");
        match engine.start_container(&caller, &container.id) {
            Err(error) if error.kind() != ErrorKind::NotModified => {
                tracing::error!(container = %container.id, error = %error.full_message(), "cannot start a container that should run");
            }
            _ => {}
        }
    });
    if blocking.await.is_err() {
        tracing::error!("a task that starts a container panicked");
    }
}

impl Need {
    /// Waits until it is met, or never will be: the policy, which says that the container is to
    /// run, outranks the order.
    async fn wait(self, who: &Container) {
        if let Some(mut tried) = self.tried {
            // Its sender goes when it is done, too.
            let _ = tried.wait_for(|tried| *tried).await;
        }
        let needed = &self.container;
        let mut life = needed.life();
        let met = match self.condition {
            Condition::Started => Ok(needed.phase().is_live()),
            Condition::Healthy => {
                let decided = life.wait_for(|life| match life.health {
                    _ if life.removed || !life.live => true,
                    Some(HealthStatus::Starting) => false,
                    // One that is started again gets another chance.
                    Some(HealthStatus::Unhealthy) => needed.phase() == Phase::Running,
                    Some(HealthStatus::Healthy) | None => true,
                });
                decided
                    .await
                    .map(|life| life.live && life.health != Some(HealthStatus::Unhealthy))
            }
            Condition::Completed => {
                let policy = needed.read(|record| record.spec.restart);
                let is_endless =
                    matches!(policy, RestartPolicy::Always | RestartPolicy::UnlessStopped);
                let ended = life.wait_for(|life| is_endless || !life.live || life.removed);
                ended.await.map(|life| !life.live && life.exit_code == 0)
            }
        };
        if !met.unwrap_or(false) {
            tracing::warn!(container = %who.id, dependency = %needed.id, condition = ?self.condition, "a container is started although its dependency is not as it should be");
        }
    }
}
