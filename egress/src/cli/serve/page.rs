//! `--ui`: where the page is shown, and the first address that opens it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::anyhow;

use super::super::Failure;
use crate::admin::ticket::Desk;
use crate::admin::{self, AdminAddress, AdminListener};
use crate::proxy::State;
use crate::ui::{self, Page};

/// A place for the page, at which nobody is answered yet.
pub(super) struct Bound {
    listener: AdminListener,
    shown: String,
    desk: Arc<Desk>,
}

impl Bound {
    /// Binds the listener.
    pub(super) async fn at(address: &AdminAddress) -> Result<Self, Failure> {
        let listener = admin::bind(address, "--ui").await?;
        // Port 0 has become another one.
        let (shown, page) = match listener.address() {
            Some(address) => (address.to_string(), format!("http://{address}/")),
            // What leads to the socket has a port of its own.
            None => (address.to_string(), "http://localhost/".into()),
        };
        Ok(Self {
            listener,
            shown,
            desk: Arc::new(Desk::new(page)),
        })
    }

    /// The address, for TCP.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.listener.address()
    }

    /// Where tickets to the page are given out.
    pub(super) fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    /// Shows the page, and says where: to the log, and as a line for `--ready-fd`.
    pub(super) fn show(self, state: &Arc<State>) -> Result<String, Failure> {
        let no_numbers = |_| Failure::runtime(anyhow!("the system has no random numbers"));
        let page = Page::new(state.clone(), self.desk.clone()).map_err(no_numbers)?;
        let url = self.desk.issue().map_err(no_numbers)?;
        tokio::spawn(ui::serve(self.listener, Arc::new(page)));
        let (address, minutes) = (self.shown, Desk::LIFE.as_secs() / 60);
        tracing::info!(%address, option = "--ui", "listening");
        // A log may be read by others, later. By then the address is used up, or has expired.
        tracing::info!(url, minutes, "this address opens the page once");
        Ok(format!("UI={address}\n"))
    }
}
