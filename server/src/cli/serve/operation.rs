//! How a server can be reached by its operator.
//!
//! Everything is opened while the process still has its rights, and answers once it has given them up.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use super::args::OperationArgs;
use super::supervise::Remote;
use crate::operate::capture::{Capture, Captures};
use crate::operate::control::{ControlSocket, Controlled, Name};
use crate::operate::{Instruments, Status, admin, locate};
use crate::stacks::Running;

/// Open, but nobody answers yet.
pub struct Doors {
    control: Option<ControlSocket>,
    admin: Option<TcpListener>,
}

/// Where the operator is answered. The control socket's name is removed when this is dropped.
pub struct Answering {
    control: Option<Name>,
    admin: Option<SocketAddr>,
}

impl Doors {
    /// Opens what `args` ask for. A server that cannot have a control socket serves all the same, unless
    /// somebody said where it shall be.
    ///
    /// # Errors
    ///
    /// If what was asked for cannot be had.
    pub fn open(args: &OperationArgs, running: &Running) -> anyhow::Result<Self> {
        let port = running
            .addresses
            .first()
            .map_or(0, |address| address.port());
        let control = match args.control.as_str() {
            "off" => None,
            "auto" => locate::open_default(port)
                .inspect_err(|error| {
                    tracing::warn!("{error}; `barewire status`, `top` and `stop` will not work");
                })
                .ok(),
            path => Some(ControlSocket::open(Path::new(path))?),
        };
        let listen = |address: admin::AdminAddress| {
            TcpListener::bind(address.0).with_context(|| {
                format!("cannot listen at {address}: choose another --admin-listen")
            })
        };
        Ok(Doors {
            control,
            admin: args.admin_listen.map(listen).transpose()?,
        })
    }

    /// Answers from here on.
    ///
    /// # Errors
    ///
    /// If the process is out of threads.
    pub fn answer(
        self,
        instruments: Instruments,
        captures: Captures,
        remote: Remote,
    ) -> anyhow::Result<Answering> {
        let admin = match self.admin {
            Some(listener) => {
                let address = listener.local_addr()?;
                admin::serve(listener, instruments.clone())?;
                Some(address)
            }
            None => None,
        };
        let controls = Arc::new(Controls {
            instruments,
            captures,
            remote,
        });
        let control = self.control.map(|socket| socket.serve(controls));
        Ok(Answering {
            control: control.transpose()?,
            admin,
        })
    }
}

impl Answering {
    /// The path of the control socket.
    pub fn control(&self) -> Option<PathBuf> {
        self.control.as_ref().map(|name| name.path().to_owned())
    }

    /// Where the metrics are.
    pub fn metrics(&self) -> Option<String> {
        self.admin
            .map(|address| format!("http://{address}/metrics"))
    }
}

/// A server as whoever holds its control socket sees it.
struct Controls {
    instruments: Instruments,
    captures: Captures,
    remote: Remote,
}

impl Controlled for Controls {
    fn status(&self) -> Status {
        self.instruments.read()
    }

    fn stop(&self) {
        self.remote.stop();
    }

    fn capture(&self, snap_bytes: u32) -> Result<Capture, String> {
        self.captures.begin(snap_bytes)
    }
}
