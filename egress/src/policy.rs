//! A policy: routes and the slots that they name, checked as a whole and swapped as a whole.

use std::time::SystemTime;

use crate::credential::{Environment, Generation, SlotName, Slots, Unusable};
use crate::route::observation::Observation;
use crate::route::{Line, Permit, Route, RouteId, Routes, Rule, Tie};

/// What is in force: every request is decided under one policy, which it pins.
#[derive(Debug, Default)]
pub struct Policy {
    /// The routes.
    pub routes: Routes,
    /// The slots that they name.
    pub slots: Slots,
}

impl Policy {
    /// Builds a policy, carrying over from `previous` what did not change.
    ///
    /// # Errors
    ///
    /// Every [`Fault`], routes' and slots' alike.
    pub fn new(
        rules: Vec<(Rule, Line)>,
        environment: &Environment,
        previous: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, Vec<Fault>> {
        let named: Vec<(SlotName, Line)> = rules
            .iter()
            .filter_map(|(rule, line)| {
                rule.injection
                    .as_ref()
                    .map(|injection| (injection.slot.clone(), *line))
            })
            .collect();
        let routes = Routes::new(rules, previous.map(|policy| &policy.routes));
        let slots = Slots::open(
            named.iter().map(|(slot, _)| slot),
            environment,
            previous.map(|policy| &policy.slots),
            now,
        );
        match (routes, slots) {
            (Ok(routes), Ok(slots)) => Ok(Self { routes, slots }),
            (routes, slots) => {
                let ties = routes.err().into_iter().flatten().map(Fault::Tie);
                let unusable = slots.err().into_iter().flatten().map(|(slot, reason)| {
                    let lines = named
                        .iter()
                        .filter(|(name, _)| *name == slot)
                        .map(|(_, line)| *line)
                        .collect();
                    Fault::Slot {
                        slot,
                        reason,
                        lines,
                    }
                });
                Err(ties.chain(unusable).collect())
            }
        }
    }

    /// The same with an observation of what the routes do not admit.
    pub fn observed(self, observation: Observation) -> Self {
        Self {
            routes: self.routes.observed(observation),
            ..self
        }
    }

    /// The same without the observation that there was: its routes alone decide.
    pub fn enforcing(&self) -> Self {
        Self {
            routes: self.routes.enforcing(),
            slots: self.slots.clone(),
        }
    }

    /// Whether a connection that was opened under a route, with a credential or without one, may go on.
    pub fn upholds(&self, lasting: &Lasting) -> bool {
        if lasting.route == RouteId::OBSERVED {
            return self.routes.observation().is_some();
        }
        let route = self.routes.get(lasting.route);
        route.is_some_and(|route| self.generation_of(route) == lasting.generation)
    }

    /// The slots without a usable value, and why. Their routes send nothing.
    pub fn unusable(&self, now: SystemTime) -> Vec<String> {
        let mut told: Vec<String> = self
            .slots
            .iter()
            .filter_map(|slot| {
                let reason = slot.lease(now).err()?;
                Some(format!("{} {reason}", slot.name()))
            })
            .collect();
        told.sort();
        told
    }

    /// The generation of the credential that a route injects now.
    fn generation_of(&self, route: &Route) -> Option<Generation> {
        let injection = route.rule.injection.as_ref()?;
        self.slots.get(&injection.slot)?.generation()
    }
}

/// What a connection that outlives its request depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lasting {
    /// The route that admitted it.
    pub route: RouteId,
    /// The credential that opened it; `None` where nothing was injected.
    pub generation: Option<Generation>,
}

impl Lasting {
    /// What a connection opened by this permit depends on.
    pub fn new(permit: &Permit, generation: Option<Generation>) -> Self {
        Self {
            route: permit.route().id,
            generation,
        }
    }
}

/// Why a policy cannot be put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Two routes of one rank.
    Tie(Tie),
    /// A slot that cannot be used, and the lines of the routes that name it.
    Slot {
        /// Its name.
        slot: SlotName,
        /// Why.
        reason: Unusable,
        /// The routes.
        lines: Vec<Line>,
    },
}
