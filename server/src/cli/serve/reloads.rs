//! Files that are read again when they change, and at SIGHUP.
//!
//! ```text
//!   SIGHUP ─────────────┐
//!   a file has changed ─┴─▶ a thread for each kind of file ─▶ what goes on with it from here on
//! ```

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use crate::confine;

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Lets files be read again.
#[derive(Debug, Clone)]
pub struct Reloads(Vec<Sender<()>>);

impl Reloads {
    /// Calls `look` every two seconds, with false, and with true when it is asked to, on a thread of this name. `enter` has
    /// returned, on that thread, when this does.
    ///
    /// # Errors
    ///
    /// If the process is out of threads.
    pub fn follow(
        name: &str,
        enter: impl FnOnce() + Send + 'static,
        mut look: impl FnMut(bool) + Send + 'static,
    ) -> io::Result<Self> {
        let (to, requests) = mpsc::channel();
        confine::spawn(name, enter, move || {
            loop {
                match requests.recv_timeout(LOOK_INTERVAL) {
                    Ok(()) => look(true),
                    Err(RecvTimeoutError::Timeout) => look(false),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Reloads(vec![to]))
    }

    /// Both.
    #[must_use]
    pub fn and(mut self, other: Reloads) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Soon, on other threads.
    pub fn request(&self) {
        for to in &self.0 {
            // The receiver is gone once the process is about to end.
            let _ = to.send(());
        }
    }
}
