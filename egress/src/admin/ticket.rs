//! Tickets to the page. Each opens it once, and soon: the admin socket gives them out, and the page takes them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::error::Unspecified;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

/// Where tickets are given out, with the address that they are for.
#[derive(Debug)]
pub struct Desk {
    /// The page's URL, up to its path.
    page: String,
    tickets: Passes,
}

impl Desk {
    /// How long a ticket is good for.
    pub const LIFE: Duration = Duration::from_secs(600);
    /// How many there are at once: a further one takes the place of the oldest.
    const MOST: usize = 8;

    /// A desk for the page at this URL, which ends with `/`.
    pub fn new(page: String) -> Self {
        Self {
            page,
            tickets: Passes::new(Self::MOST, Self::LIFE),
        }
    }

    /// An address that opens the page once.
    ///
    /// # Errors
    ///
    /// [`Unspecified`], where the system has no random numbers.
    pub fn issue(&self) -> Result<String, Unspecified> {
        let ticket = self.tickets.issue()?;
        Ok(format!("{}?{QUERY}{ticket}", self.page))
    }

    /// Whether this is a ticket. It is none afterwards.
    pub fn take(&self, ticket: &str) -> bool {
        self.tickets.take(ticket)
    }
}

/// What stands before a ticket in the query of an address.
pub const QUERY: &str = "token=";

/// Random texts that open something for a while, up to a number of them.
#[derive(Debug)]
pub struct Passes {
    most: usize,
    life: Duration,
    /// The oldest first.
    issued: Mutex<VecDeque<(Instant, String)>>,
}

impl Passes {
    /// None yet.
    pub fn new(most: usize, life: Duration) -> Self {
        Self {
            most,
            life,
            issued: Mutex::default(),
        }
    }

    /// A new one, of 256 bits.
    ///
    /// # Errors
    ///
    /// [`Unspecified`], where the system has no random numbers.
    pub fn issue(&self) -> Result<String, Unspecified> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes)?;
        let pass = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        self.with(|issued| {
            if issued.len() >= self.most {
                issued.pop_front();
            }
            issued.push_back((Instant::now(), pass.clone()));
        });
        Ok(pass)
    }

    /// Whether this is one of them.
    pub fn holds(&self, pass: &str) -> bool {
        self.with(|issued| place(issued, pass).is_some())
    }

    /// Whether this is one of them. It is none afterwards.
    pub fn take(&self, pass: &str) -> bool {
        self.with(|issued| place(issued, pass).and_then(|place| issued.remove(place)))
            .is_some()
    }

    /// Does something with those that are still good.
    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<(Instant, String)>) -> T) -> T {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.retain(|(since, _)| since.elapsed() < self.life);
        act(&mut issued)
    }
}

/// Where a pass stands. How long it takes tells nothing about one that is nearly right.
fn place(issued: &VecDeque<(Instant, String)>, pass: &str) -> Option<usize> {
    let mut found = None;
    for (place, (_, known)) in issued.iter().enumerate() {
        if bool::from(known.as_bytes().ct_eq(pass.as_bytes())) {
            found = Some(place);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Desk, Passes};

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_ticket_is_taken_once() {
        let desk = Desk::new("http://127.0.0.1:1/".into());
        let address = desk.issue().expect("random numbers");
        let ticket = address.strip_prefix("http://127.0.0.1:1/?token=");
        let ticket = ticket.expect("an address of the page");
        assert_eq!(ticket.len(), 43);
        assert!(!desk.take(""));
        assert!(!desk.take(&ticket[1..]));
        assert!(desk.take(ticket));
        assert!(!desk.take(ticket));
    }

    #[test]
    fn one_too_many_takes_the_place_of_the_oldest() {
        let passes = Passes::new(2, HOUR);
        let all = [(); 3].map(|()| passes.issue().expect("random numbers"));
        assert_eq!(
            all.each_ref().map(|pass| passes.holds(pass)),
            [false, true, true]
        );
    }

    #[test]
    fn a_pass_ends() {
        let passes = Passes::new(2, Duration::ZERO);
        let pass = passes.issue().expect("random numbers");
        assert!(!passes.holds(&pass) && !passes.take(&pass));
    }
}
