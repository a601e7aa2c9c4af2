//! Namespaces made in advance: making one is most of what the kernel does to start a container.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::endpoint::Prepared;
use crate::error::{Error, Result};
use crate::namespace::NetworkNamespace;
use crate::network::Network;

/// How long to wait before trying again to make a namespace.
const RETRY: Duration = Duration::from_secs(1);
/// How long to leave a workload that has just taken a namespace alone with the processor and the
/// kernel's network lock, unless less than half of the pool is left.
const REFILL_DELAY: Duration = Duration::from_millis(10);

/// Keeps a number of namespaces ready. The namespaces belong to the user namespace of the process.
/// Thread-safe. Dropped, it waits for its thread and all unused namespaces are gone; killed, too,
/// since only descriptors hold them.
#[derive(Debug)]
pub struct NamespacePool {
    shared: Arc<Shared>,
    refill: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Without one: namespaces that have a loopback interface only.
    network: Option<Network>,
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Prepared>,
    stopping: bool,
}

impl NamespacePool {
    /// A pool of `size` namespaces, each with a cable to the bridge of `network`. They become
    /// ready in the background. With a size of 0 each one is made when it is taken.
    ///
    /// # Errors
    /// The kernel's, if no thread can be started.
    pub fn new(network: &Network, size: usize) -> Result<Self> {
        Self::start(Some(network.clone()), size)
    }

    /// A pool of `size` namespaces that reach nothing but themselves, for network `none`.
    ///
    /// # Errors
    /// As [`NamespacePool::new`].
    pub fn loopback_only(size: usize) -> Result<Self> {
        Self::start(None, size)
    }

    fn start(network: Option<Network>, size: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            network,
            size,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let refill = if size == 0 {
            None
        } else {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("network-pool".to_owned());
            let refill = thread.spawn(move || refill(&shared));
            Some(
                refill
                    .map_err(|source| Error::system("start the network pool's thread", source))?,
            )
        };
        Ok(Self { shared, refill })
    }

    /// Hands out a namespace: one that is ready, or else one made now.
    ///
    /// # Errors
    /// `Forbidden` without CAP_SYS_ADMIN and CAP_NET_ADMIN, `Unavailable` at a limit (ENOSPC: the
    /// number of network namespaces, EMFILE: descriptors); the kernel's otherwise.
    pub fn take(&self) -> Result<Prepared> {
        let ready = self.shared.lock().ready.pop_front();
        if let Some(prepared) = ready {
            self.shared.changed.notify_all();
            return Ok(prepared);
        }
        // A thread of its own makes it, as the maker ends up inside. It starts in the caller's
        // namespace, and the caller's is never changed.
        self.make(Prepared::make_here)
    }

    /// Makes a namespace in a user namespace of its own, whose `count` ids from 0 on are those
    /// from `first` on here. Whoever joins both is root over that network.
    ///
    /// # Errors
    /// As [`NamespacePool::take`].
    pub fn make_for_ids(&self, first: u32, count: u32) -> Result<Prepared> {
        self.make(move |network| Prepared::make_for_ids(network, first, count))
    }

    fn make(
        &self,
        make: impl FnOnce(Option<&Network>) -> Result<Prepared> + Send + 'static,
    ) -> Result<Prepared> {
        let network = self.shared.network.clone();
        let thread = std::thread::Builder::new().name("network-maker".to_owned());
        let maker = thread
            .spawn(move || make(network.as_ref()))
            .map_err(|source| {
                Error::system("start a thread to make a network namespace", source)
            })?;
        maker.join().unwrap_or_else(|_| {
            Err(Error::system(
                "make a network namespace",
                std::io::Error::other("the thread making it panicked"),
            ))
        })
    }

    /// How many namespaces are ready now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.shared.lock().ready.len()
    }

    /// How many it keeps ready.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shared.size
    }
}

impl Drop for NamespacePool {
    fn drop(&mut self) {
        let unused = {
            let mut state = self.shared.lock();
            state.stopping = true;
            std::mem::take(&mut state.ready)
        };
        self.shared.changed.notify_all();
        drop(unused);
        if let Some(refill) = self.refill.take() {
            // It panics nowhere; if it did, there would be nothing more to clean up.
            let _ = refill.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the pool is short of a namespace. `false` if it is to stop.
    fn wait_for_demand(&self) -> bool {
        let mut state = self.lock();
        let mut was_full = false;
        while !state.stopping && state.ready.len() >= self.size {
            was_full = true;
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        while was_full && !state.stopping && state.ready.len() * 2 > self.size {
            let (next, timeout) = self
                .changed
                .wait_timeout(state, REFILL_DELAY)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() {
                break;
            }
        }
        !state.stopping
    }

    fn pause(&self) {
        let state = self.lock();
        let stopping = |state: &mut State| !state.stopping;
        drop(self.changed.wait_timeout_while(state, RETRY, stopping));
    }
}

/// The background thread.
fn refill(shared: &Shared) {
    let home = match NetworkNamespace::current() {
        Ok(home) => home,
        Err(error) => {
            tracing::warn!(%error, "no network namespaces are prepared: each start makes its own");
            return;
        }
    };
    while shared.wait_for_demand() {
        let made = Prepared::make_here(shared.network.as_ref());
        // Out of the new namespace, which would otherwise outlive its workload.
        if let Err(error) = home.enter() {
            tracing::warn!(%error, "network namespaces are not prepared any more");
            return;
        }
        match made {
            Ok(prepared) => {
                let mut state = shared.lock();
                if !state.stopping {
                    state.ready.push_back(prepared);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a network namespace could not be prepared; trying again");
                shared.pause();
            }
        }
    }
}
