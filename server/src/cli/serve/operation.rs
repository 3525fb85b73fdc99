//! How a server can be reached by its operator.
//!
//! Both endpoints are opened while the process still has its privileges. The control socket, which can stop the
//! server, is answered only once the process has given them up.

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::args::OperationArgs;
use super::state::StateFile;
use super::supervise::Remote;
use crate::cli::proxy::Handle;
use crate::operate::admin::{Admin, AdminAddress};
use crate::operate::capture::{Capture, Captures};
use crate::operate::control::{Answered, ControlSocket, Controlled};
use crate::operate::{Instruments, Status, locate};
use crate::takeover::{Estate, Inheritance, Leaving, Predecessor, Successor};
use barewire_service::lifecycle::{Lifecycle, Phase};
use barewire_service::stack::Running;
use barewire_tls::Identity;
use zeroize::Zeroizing;

/// The control socket and the admin address, open; requests to the control socket are not answered yet.
pub struct Endpoints {
    control: Option<ControlSocket>,
    admin: Option<Admin>,
}

/// Where the operator is answered. The control socket's name is removed when this is dropped.
pub struct Answers(Arc<Answering>);

impl Deref for Answers {
    type Target = Answering;

    fn deref(&self) -> &Answering {
        &self.0
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // The threads that answer hold the rest for as long as the process lives.
        if let Some(control) = self.control.get() {
            control.remove_name();
        }
    }
}

/// Where the operator is answered, and what else a successor gets.
pub struct Answering {
    control: OnceLock<Answered>,
    admin: Option<Admin>,
    /// Where the counts are kept, if they are.
    state: Mutex<Option<StateFile>>,
    lifecycle: Lifecycle,
    remote: Remote,
    identity: Option<Arc<Identity>>,
    is_ready: AtomicBool,
    /// Whether the server that this one took over from has ended.
    is_alone: OnceLock<Arc<AtomicBool>>,
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
        successor: Option<&mut Successor>,
        enter: impl Fn() + Clone + Send + 'static,
    ) -> anyhow::Result<Self> {
        if let Some(successor) = successor {
            return Self::inherit(args, instruments, successor, enter);
        }
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
        let start = |address| Admin::start(address, instruments, None, enter);
        Ok(Endpoints {
            control,
            admin: args.admin_listen.map(start).transpose()?,
        })
    }

    /// Those of the server before; another admin address is a new one.
    fn inherit(
        args: &OperationArgs,
        instruments: &Instruments,
        successor: &mut Successor,
        enter: impl Fn() + Clone + Send + 'static,
    ) -> anyhow::Result<Self> {
        let path = successor.path().to_owned();
        let control = successor.control.take();
        let (its, listener) = (successor.estate.admin, successor.admin.take());
        let start = |address: AdminAddress| {
            let is_same = its.is_some_and(|its| {
                let port = address.0.port();
                its.ip() == address.0.ip() && (port == 0 || port == its.port())
            });
            Admin::start(address, instruments, listener.filter(|_| is_same), enter)
        };
        Ok(Endpoints {
            control: control.map(|socket| ControlSocket::inherited(socket, &path)),
            admin: args.admin_listen.map(start).transpose()?,
        })
    }

    /// Where metrics are.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Answers from here on. `predecessor` makes what can be taken over from.
    ///
    /// # Errors
    ///
    /// If the process is out of threads.
    pub fn answer(
        self,
        instruments: Instruments,
        captures: Captures,
        (remote, lifecycle): (Remote, Lifecycle),
        proxy: Option<Handle>,
        (state, identity): (Option<StateFile>, Option<Arc<Identity>>),
        predecessor: impl FnOnce(Box<dyn Leaving>) -> Option<Predecessor>,
    ) -> anyhow::Result<Answers> {
        let answering = Arc::new(Answering {
            control: OnceLock::new(),
            admin: self.admin,
            state: Mutex::new(state),
            lifecycle,
            identity,
            remote: remote.clone(),
            is_ready: AtomicBool::new(false),
            is_alone: OnceLock::new(),
        });
        let household = Household(Arc::clone(&answering));
        let controls = Arc::new(Controls {
            instruments,
            captures,
            remote,
            proxy,
            predecessor: predecessor(Box::new(household)).map(Arc::new),
        });
        if let Some(admin) = &answering.admin {
            admin.begin();
        }
        if let Some(socket) = self.control {
            let _ = answering.control.set(socket.serve(controls)?);
        }
        Ok(Answers(answering))
    }
}

/// What a successor gets beside connections and counts.
struct Household(Arc<Answering>);

impl Leaving for Household {
    fn may_leave(&self) -> Result<(), String> {
        let Household(this) = self;
        if !this.is_ready.load(Ordering::Acquire) {
            return Err("it is not ready yet".into());
        }
        if this.lifecycle.phase() != Phase::Serve {
            return Err("it is ending".into());
        }
        match this.is_alone.get() {
            Some(is_alone) if !is_alone.load(Ordering::Acquire) => Err(
                "the server that it took over from still serves its last connections: wait until its process has ended"
                    .into(),
            ),
            _ => Ok(()),
        }
    }

    fn endpoints(&self) -> io::Result<Vec<OwnedFd>> {
        let Household(this) = self;
        let control = this.control.get().map(Answered::socket);
        let admin = this.admin.as_ref().map(Admin::socket);
        let state = this.state().as_ref().and_then(StateFile::locked);
        let state = state.map(|file| file.map(OwnedFd::from));
        control.into_iter().chain(admin).chain(state).collect()
    }

    fn ticket_keys(&self) -> Zeroizing<Vec<u8>> {
        let Household(this) = self;
        let identity = this.identity.as_ref();
        identity.map_or_else(Zeroizing::default, |identity| identity.ticket_keys())
    }

    fn leave(&self) {
        let Household(this) = self;
        if let Some(control) = this.control.get() {
            control.give_away();
        }
        if let Some(admin) = &this.admin {
            admin.give_away();
        }
        *this.state() = None;
        this.remote.hand_over();
    }
}

impl Answering {
    /// The server is ready, after the one that it took over from if `is_alone` is there; that says when it has ended.
    pub fn is_ready(&self, is_alone: Option<Arc<AtomicBool>>) {
        if let Some(is_alone) = is_alone {
            let _ = self.is_alone.set(is_alone);
        }
        self.is_ready.store(true, Ordering::Release);
    }

    /// Where the counts are kept, if they are.
    pub fn state(&self) -> MutexGuard<'_, Option<StateFile>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of the control socket.
    pub fn control(&self) -> Option<PathBuf> {
        self.control.get().and_then(Answered::path)
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
    predecessor: Option<Arc<Predecessor>>,
}

impl Controlled for Controls {
    fn status(&self) -> Status {
        self.instruments.read()
    }

    fn stop(&self) {
        self.remote.stop();
    }

    fn hand_over(&self, protocol: u32) -> Result<(Estate, Inheritance), String> {
        match &self.predecessor {
            Some(predecessor) => predecessor.offer(protocol),
            None => Err("a proxy and a server with --wait-for-interface do not hand over".into()),
        }
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
