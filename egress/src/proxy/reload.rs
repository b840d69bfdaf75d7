//! Changes of what is in force: [`Reloading::run`] for routes, [`State::refresh_slots`] for the values behind them.
//!
//! A new policy is built whole and swapped in one step. On any fault the old one stays.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::setpriority_process;
use tokio::sync::{MutexGuard, oneshot};
use tokio::time::timeout;

use super::State;
use super::connect::denied;
use super::redact::warn_of_short_values;
use super::reject::{Cause, Reject};
use crate::config::{self, Draft, Fault, Faults};
use crate::credential::handed::Handed;
use crate::credential::{Environment, Lease, Refreshed, SlotName, Unusable, unix_seconds};
use crate::policy::{Lasting, Policy};
use crate::route::target::{Origin, Scheme};
use crate::route::{Injection, Permit, RouteId, Routes, Tls};

/// How far the reading of a large file stands back: a thirtieth of what a request gets of a processor that both want
/// (sched(7)). Reading 100,000 routes takes more than a second.
const NICENESS: i32 = 15;
/// For how long it does.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is no larger, in bytes, takes at most a tenth of a second, and waits for nobody.
const LARGE: u64 = 1 << 20;

/// Where a policy comes from.
#[derive(Debug)]
pub struct Source {
    /// The routes file.
    pub routes: PathBuf,
    /// Slot values, taken at the start.
    pub environment: Environment,
    last_fault: Mutex<Option<String>>,
    /// One change of what is in force, or one look at the slots, at a time.
    pub turn: Mutex<()>,
    reloading: tokio::sync::Mutex<()>,
}

impl Source {
    /// A policy's origin.
    pub fn new(routes: PathBuf, environment: Environment) -> Self {
        Self {
            routes,
            environment,
            last_fault: Mutex::default(),
            turn: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
        }
    }

    /// The faults of the last reload, where it failed.
    pub fn fault(&self) -> Option<String> {
        let fault = self.last_fault.lock();
        fault.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Routes that are new, as `host (line N)`.
    pub added: Vec<String>,
    /// Routes that are gone. A changed route is removed and added.
    pub removed: Vec<String>,
    /// Slots with another value than before.
    pub rotated: Vec<String>,
    /// Slots without a usable value, and why. Their routes send nothing.
    pub unusable: Vec<String>,
}

/// What a reload would put in force.
#[derive(Debug)]
pub struct Preview {
    /// The policy.
    pub policy: Policy,
    /// Of the routes file's text ([`Draft::digest`]).
    pub digest: String,
}

/// The turn to reload. There is one: of two reloads, the one that begins later has read the newer file.
#[derive(Debug)]
pub struct Reloading<'a> {
    state: &'a Arc<State>,
    _turn: MutexGuard<'a, ()>,
}

impl Reloading<'_> {
    /// Reads the routes file and the slots again, and puts them in force.
    ///
    /// # Errors
    ///
    /// The system's where it gives no thread, and a word for a thread that did not come to its end; and all faults of the
    /// new policy. The old one stays in force.
    pub async fn run(self) -> io::Result<Result<Reloaded, Faults>> {
        let draft = self.read().await?;
        self.put_in_force(draft).await
    }

    /// Reads the routes file.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub async fn read(&self) -> io::Result<Draft> {
        self.state.read().await
    }

    /// Puts in force what was read, with the slots as they are now.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub async fn put_in_force(self, draft: Draft) -> io::Result<Result<Reloaded, Faults>> {
        let state = self.state.clone();
        aside(move || state.put_in_force(draft)).await
    }
}

impl State {
    /// The turn to reload, once those before have ended.
    pub async fn reloading(self: &Arc<Self>) -> Reloading<'_> {
        Reloading {
            state: self,
            _turn: self.source.reloading.lock().await,
        }
    }

    /// What a reload would put in force now. Nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`Reloading::run`].
    pub async fn preview(self: &Arc<Self>) -> io::Result<Result<Preview, Faults>> {
        let turn = self.reloading().await;
        let draft = turn.read().await?;
        let state = self.clone();
        aside(move || {
            let digest = draft.digest();
            let policy = state.tried(draft, &state.policy.load_full())?;
            Ok(Preview { policy, digest })
        })
        .await
    }

    /// Reads the routes file. Of a large one requests go first, for as long as that may be: a reload may take a credential
    /// away, and an agent that has every processor busy would otherwise put it off.
    async fn read(&self) -> io::Result<Draft> {
        let file = self.source.routes.clone();
        if fs::metadata(&file).is_ok_and(|file| file.len() > LARGE) {
            let file = file.clone();
            let read = aside(move || {
                // On Linux it is this thread's alone. Where it is refused, the reload is quicker, and requests are not.
                _ = setpriority_process(None, NICENESS);
                config::read(&file)
            });
            if let Ok(read) = timeout(PATIENCE, read).await {
                return read;
            }
        }
        aside(move || config::read(&file)).await
    }

    fn put_in_force(&self, draft: Draft) -> Result<Reloaded, Faults> {
        let _turn = self
            .source
            .turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let old = self.policy.load_full();
        let loaded = self.tried(draft, &old);
        let mut last_fault = self
            .source
            .last_fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Ok(policy) => {
                let mut changes = difference(&old, &policy);
                warn_of_waivers(&policy.routes);
                // A slot that cannot be opened any more was carried over, with its value.
                self.look_at_slots(&policy);
                changes.unusable = policy.unusable(SystemTime::now());
                warn_of_short_values(&policy);
                self.policy.store(policy.into());
                // After the swap, so that whoever sees a connection close finds the new policy in force.
                self.upstream.retain(&self.policy.load());
                let counters = &self.audit.counters;
                counters.reloads.fetch_add(1, Ordering::Relaxed);
                let now = unix_seconds(SystemTime::now());
                counters.last_reload.store(now, Ordering::Relaxed);
                *last_fault = None;
                self.announce();
                retire(old);
                Ok(changes)
            }
            Err(faults) => {
                self.audit
                    .counters
                    .reload_failures
                    .fetch_add(1, Ordering::Relaxed);
                *last_fault = Some(faults.to_string());
                Err(faults)
            }
        }
    }

    /// The policy that a file comes to after another one.
    fn tried(&self, draft: Draft, old: &Policy) -> Result<Policy, Faults> {
        draft
            .into_policy(&self.source.environment, Some(old), SystemTime::now())
            .and_then(|policy| self.certifiable(policy))
    }

    /// Checks that the bottle's root may certify each host that tunnels are opened to.
    fn certifiable(&self, policy: Policy) -> Result<Policy, Faults> {
        let faults: Vec<Fault> = uncertifiable(&policy.routes, self.issuer.root()).collect();
        if faults.is_empty() {
            return Ok(policy);
        }
        Err(Faults::new(
            self.source.routes.display().to_string(),
            "",
            faults,
        ))
    }

    /// Takes slot values over from the launcher: they are in force when this returns. Blocking.
    ///
    /// # Errors
    ///
    /// A slot that has its value from elsewhere. Then nothing is taken.
    pub fn hand_over(&self, values: Handed) -> Result<(), SlotName> {
        let names: Vec<SlotName> = values.names().cloned().collect();
        self.source.environment.hand_over(values)?;
        self.refresh_slots();
        warn_of_unnamed(&self.policy.load(), &names);
        Ok(())
    }

    /// Looks again where each slot's value comes from. Blocking.
    pub fn refresh_slots(&self) {
        // Of two that look at once, the slower one would put the older value back.
        let _turn = self
            .source
            .turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let policy = self.policy.load_full();
        if self.look_at_slots(&policy) {
            warn_of_short_values(&policy);
            self.upstream.retain(&policy);
            self.announce();
        }
    }

    /// Whether a slot has another value than before, or none any more.
    fn look_at_slots(&self, policy: &Policy) -> bool {
        let mut changed = false;
        for slot in policy.slots.iter() {
            match slot.refresh(&self.source.environment) {
                Refreshed::Unchanged => continue,
                Refreshed::Rotated => {
                    tracing::info!(slot = %slot.name(), "the slot's value was rotated")
                }
                Refreshed::Gone(reason) => {
                    tracing::error!(slot = %slot.name(), %reason, "the slot's value is gone")
                }
            }
            changed = true;
        }
        changed
    }

    /// Has every lasting connection look whether it is still upheld.
    pub(super) fn announce(&self) {
        self.epoch.send_modify(|epoch| epoch.changes += 1);
    }

    /// Resolves once the policy no longer upholds what a connection rests on, or would now decide its request by another
    /// route.
    pub(super) async fn revoked(&self, permit: &Permit, lasting: Lasting) {
        let mut epoch = self.epoch.subscribe();
        loop {
            epoch.mark_unchanged();
            if !self.upholds(permit, &lasting) {
                return;
            }
            if epoch.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether a request would be decided by the same route as it was, and its connection be upheld.
    fn upholds(&self, permit: &Permit, lasting: &Lasting) -> bool {
        let policy = self.policy.load();
        let decided = policy.routes.decide(permit.target().clone());
        decided.is_ok_and(|now| now.route().id == lasting.route) && policy.upholds(lasting)
    }

    /// Resolves once a new tunnel to the origin would not be passed through under this route: it is gone, or another one
    /// ranks before it.
    pub(super) async fn diverted(&self, origin: &Origin, route: RouteId) {
        let mut epoch = self.epoch.subscribe();
        loop {
            epoch.mark_unchanged();
            let permit = self.policy.load().routes.admit_passthrough(origin);
            if permit.map_or(true, |permit| permit.route().id != route)
                || epoch.changed().await.is_err()
            {
                return;
            }
        }
    }

    /// Works on a tunnel that has no connection yet, for as long as a tunnel to its origin may be open at all.
    pub(super) async fn unless_withdrawn<T>(
        &self,
        origin: &Origin,
        work: impl Future<Output = Result<T, Reject>>,
    ) -> Result<T, Reject> {
        tokio::select! {
            done = work => done,
            reject = self.withdrawn(origin) => Err(reject),
        }
    }

    async fn withdrawn(&self, origin: &Origin) -> Reject {
        let mut epoch = self.epoch.subscribe();
        loop {
            if epoch.borrow_and_update().stopping {
                return Reject::new(Cause::Stopping);
            }
            if let Err(denial) = self.policy.load().routes.admits(origin) {
                return denied(origin, &denial);
            }
            if epoch.changed().await.is_err() {
                return Reject::new(Cause::Stopping);
            }
        }
    }

    /// Resolves once the sidecar is stopping.
    pub(super) async fn drained(&self) {
        _ = self
            .epoch
            .subscribe()
            .wait_for(|epoch| epoch.stopping)
            .await;
    }
}

impl Policy {
    /// The credential for a request.
    ///
    /// # Errors
    ///
    /// [`Unusable`], where it has expired or gone.
    pub fn lease(&self, injection: &Injection, now: SystemTime) -> Result<Lease, Unusable> {
        self.slots
            .get(&injection.slot)
            .ok_or(Unusable::Missing)?
            .lease(now)
    }
}

/// One fault for each host outside the name constraints of the bottle's root: every client would refuse its leaf.
pub fn uncertifiable<'a>(
    routes: &'a Routes,
    root: &'a egress_ca::Root,
) -> impl Iterator<Item = Fault> + use<'a> {
    let intercepted = routes
        .iter()
        .filter(|route| route.rule.scheme == Scheme::Https && route.rule.tls == Tls::Intercept);
    intercepted.filter(|route| !root.permits(&route.rule.host.to_string())).map(|route| {
        let host = &route.rule.host;
        Fault::of_file(format!("the host {host} (line {}) is outside the name constraints of the bottle's CA", route.line))
            .key("host")
            .hint("issue the CA anew with `egress ca init --renew` and the sidecar's own -r and --ca-dir, restart the sidecar, and give the agent the new certificate")
    })
}

/// Says in the log which routes give up a guard of the credential that they inject. It may be meant, and is no fault.
pub fn warn_of_waivers(routes: &Routes) {
    for route in routes.iter() {
        for key in route.rule.waived() {
            tracing::warn!(host = %route.rule.host, line = route.line, key, "the route gives up a guard of its credential");
        }
    }
}

/// Says in the log which slots were handed over that no route names: a name may be misspelt, or a reload is to come.
pub fn warn_of_unnamed(policy: &Policy, handed: &[SlotName]) {
    for slot in handed {
        if policy.slots.get(slot).is_none() {
            tracing::warn!(%slot, "no route names this slot of --slots-fd; its value waits for a reload");
        }
    }
}

/// Works on a thread of its own.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .name("reload".to_owned())
        .spawn(move || _ = done.send(work()))?;
    result
        .await
        .map_err(|_| io::Error::other("its thread did not come to an end"))
}

/// Frees the policy before, here and not in the midst of a request that was decided by it.
fn retire(old: Arc<Policy>) {
    const STEP: Duration = Duration::from_millis(1);
    const STEPS: u32 = 1000;
    for _ in 0..STEPS {
        // Nobody holds one while waiting for anything.
        if Arc::strong_count(&old) == 1 {
            break;
        }
        std::thread::sleep(STEP);
    }
}

fn difference(old: &Policy, new: &Policy) -> Reloaded {
    let missing_in = |from: &Routes, other: &Routes| {
        from.iter()
            .filter(|route| other.get(route.id).is_none())
            .map(|route| route.to_string())
            .collect()
    };
    let rotated = new
        .slots
        .iter()
        .filter(|slot| {
            old.slots
                .get(slot.name())
                .is_none_or(|before| before.generation() != slot.generation())
        })
        .map(|slot| slot.name().to_string());
    Reloaded {
        added: missing_in(&new.routes, &old.routes),
        removed: missing_in(&old.routes, &new.routes),
        rotated: rotated.collect(),
        unusable: Vec::new(),
    }
}
