//! How a server can be reached by its operator.
//!
//! Both endpoints are opened while the process still has its privileges. The control socket, which can stop the
//! server, is answered only once the process has given them up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::OperationArgs;
use super::supervise::Remote;
use crate::cli::proxy::Handle;
use crate::operate::admin::Admin;
use crate::operate::capture::{Capture, Captures};
use crate::operate::control::{ControlSocket, Controlled, Name};
use crate::operate::{Instruments, Status, locate};
use barewire_service::stack::Running;

/// The control socket and the admin address, open; requests to the control socket are not answered yet.
pub struct Endpoints {
    control: Option<ControlSocket>,
    admin: Option<Admin>,
}

/// Where the operator is answered. The control socket's name is removed when this is dropped.
pub struct Answering {
    control: Option<Name>,
    admin: Option<Admin>,
}

impl Endpoints {
    /// Opens what `args` ask for. A server that cannot have a control socket serves all the same, unless
    /// its place was configured.
    ///
    /// # Errors
    ///
    /// If what was asked for cannot be had.
    pub fn open(
        args: &OperationArgs,
        running: &Running,
        instruments: &Instruments,
        enter: impl Fn() + Clone + Send + 'static,
    ) -> anyhow::Result<Self> {
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
        let start = |address| Admin::start(address, instruments, enter);
        Ok(Endpoints {
            control,
            admin: args.admin_listen.map(start).transpose()?,
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
        proxy: Option<Handle>,
    ) -> anyhow::Result<Answering> {
        let controls = Arc::new(Controls {
            instruments,
            captures,
            remote,
            proxy,
        });
        let control = self.control.map(|socket| socket.serve(controls));
        Ok(Answering {
            control: control.transpose()?,
            admin: self.admin,
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
        let admin = self.admin.as_ref();
        admin.map(|admin| format!("http://{}/metrics", admin.address()))
    }
}

/// What the control socket can ask of a server.
struct Controls {
    instruments: Instruments,
    captures: Captures,
    remote: Remote,
    proxy: Option<Handle>,
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

    fn purge(&self, what: &str) -> Result<usize, String> {
        match &self.proxy {
            Some(proxy) => proxy.purge(what),
            None => Err("it is no proxy, and has no cache".into()),
        }
    }
}
