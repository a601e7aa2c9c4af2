//! Memory of the daemon: what many containers have needed goes back to the machine with them.

use gamut_engine::events::EngineEvent;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// Arenas of the allocator (mallopt(3)): one per worker. The default is eight per processor, each
/// of which keeps what it once had.
const ARENAS: libc::c_int = 2;
/// How long after the last removal memory is given back.
const REST: Duration = Duration::from_secs(2);

/// Bounds the number of the allocator's arenas. To be called before there are threads.
pub fn bound_arenas() {
    // SAFETY: plain call; no other thread allocates yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

/// Gives free memory back to the kernel whenever containers or images were removed and that has
/// come to a rest.
pub async fn give_back_after_removals(mut events: Receiver<Arc<EngineEvent>>) {
    loop {
        match events.recv().await {
            Ok(event) if !frees(&event) => continue,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
        while let Ok(next) = tokio::time::timeout(REST, events.recv()).await {
            if matches!(next, Err(RecvError::Closed)) {
                return;
            }
        }
        let trimmed = tokio::task::spawn_blocking(|| {
            // SAFETY: plain call, which locks the allocator as it needs to.
            unsafe { libc::malloc_trim(0) }
        });
        // Whether there was something to give back does not matter.
        let _ = trimmed.await;
    }
}

fn frees(event: &EngineEvent) -> bool {
    matches!(
        event.action.as_str(),
        "destroy" | "delete" | "load" | "pull"
    )
}
