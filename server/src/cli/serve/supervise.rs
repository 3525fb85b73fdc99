//! A running server: signals become phases, and a core that ends early ends the server.
//!
//! ```text
//!  SIGTERM, ... ────▶ signals ──┐              ┌─▶ Lifecycle::advance ─▶ cores
//!  barewire stop ───▶ Remote ───┼─▶ events ─▶ main
//!  a core ended ───▶ watchers ──┘              └─▶ Ending, after the last core or a deadline
//! ```
//!
//! No signal that a process can catch ends a server without draining it and keeping its counts, except
//! those that tell of a fault of its own:
//!
//! | signals | what they do |
//! |---|---|
//! | TERM, INT, QUIT, PWR, XCPU | the first one drains, the next one stops at once |
//! | HUP, with TLS | certificates are read again, unless it was ignored at the start (`nohup`) |
//! | HUP (the terminal is gone), without | drains, unless it was ignored at the start; a second one changes nothing |
//! | USR1, USR2, ALRM, VTALRM, PROF, IO, STKFLT, PIPE, XFSZ, TTOU, real-time ones | nothing: the log mentions them |
//! | ABRT, BUS, FPE, ILL, SEGV, SYS, TRAP | end the process |

use std::fmt;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use barewire_service::cores::CoreError;
use barewire_service::lifecycle::{Lifecycle, Phase};
use procfs::process::Process;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use super::manager::{self, Notice};
use super::reloads::Reloads;
use barewire_service::stack::Watch;

/// How long cores have to stop once they were told to stop at once. Closing a zero-copy socket waits for the NIC,
/// about a second for each queue of a core; a core that takes longer hangs.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long idle connections have to close, at the end of a server that another one took over from.
const DISMISS_TIMEOUT: Duration = Duration::from_secs(2);

/// How a server came to its end, unless a core broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every connection was served to its end.
    Drained,
    /// The drain deadline passed; connections that were left were reset.
    DrainTimeout,
    /// It was told to stop a second time.
    Forced(Cause),
}

/// What ends the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A signal with this number.
    Signal(i32),
    /// A request to the control socket.
    Control,
}

impl Cause {
    /// The signal, or the one that means the same.
    pub fn signal(self) -> i32 {
        match self {
            Cause::Signal(signal) => signal,
            Cause::Control => SIGTERM,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Signal(signal) => match signal_name(*signal) {
                Some(name) => f.write_str(name),
                None => write!(f, "signal {signal}"),
            },
            Cause::Control => f.write_str("barewire stop"),
        }
    }
}

/// Lets another thread end the server.
#[derive(Debug, Clone)]
pub struct Remote(Sender<Event>);

impl Remote {
    /// Another process serves: ends once what is left here has been served.
    pub fn hand_over(&self) {
        let _ = self.0.send(Event::HandedOver);
    }

    /// Drains; called again, ends at once.
    pub fn stop(&self) {
        // The receiver is gone once the process is about to end.
        let _ = self.0.send(Event::Stop(Cause::Control));
    }
}

/// The signals that drain a server; SIGHUP is one of them, unless it is ignored.
const ENDING: &[i32] = &[SIGTERM, SIGINT, SIGQUIT, libc::SIGPWR, libc::SIGXCPU];

/// Signals that would end a process, or stop it, and mean nothing to a server. Real-time signals are as these.
const MEANINGLESS: &[i32] = &[
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGSTKFLT,
    libc::SIGPIPE,
    libc::SIGXFSZ,
    // From a terminal that does not let background processes write, for each line of the log.
    libc::SIGTTOU,
];

/// Signals, caught from here on.
pub struct Supervisor {
    events: Receiver<Event>,
    sender: Sender<Event>,
    /// What SIGHUP asks for; `None`: the end.
    reloads: Option<Reloads>,
}

#[derive(Debug)]
enum Event {
    Stop(Cause),
    Ignored(Cause),
    HandedOver,
    Broken(anyhow::Error),
    CoreEnded {
        index: usize,
        outcome: thread::Result<Result<(), CoreError>>,
    },
}

impl Supervisor {
    /// Takes over all signals that would end the process.
    ///
    /// # Errors
    ///
    /// If the process is out of descriptors or threads.
    pub fn new(reloads: Option<Reloads>) -> io::Result<Self> {
        let (sender, events) = mpsc::channel();
        let to = sender.clone();
        catch_signals(move |signal| to.send(event_of(signal)).is_ok())?;
        Ok(Supervisor {
            events,
            sender,
            reloads,
        })
    }

    /// What ends the server from another thread.
    pub fn remote(&self) -> Remote {
        Remote(self.sender.clone())
    }

    /// Lets `watch` end the server.
    ///
    /// # Errors
    ///
    /// If the process is out of threads.
    pub fn watch(&self, watch: Watch) -> io::Result<()> {
        let to = self.sender.clone();
        let wait = move || {
            // The receiver is gone once the process is about to end.
            let _ = to.send(Event::Broken(anyhow::Error::from_boxed(watch.0())));
        };
        thread::Builder::new()
            .name("watch/stack".into())
            .spawn(wait)?;
        Ok(())
    }

    /// Stays until all `cores` have ended: after a signal that is when they have drained, at most
    /// `drain_timeout` later.
    ///
    /// # Errors
    ///
    /// What broke a core, or a watch noticed. The others are stopped at once then: a server with a core less answers
    /// only a part of its clients.
    pub fn run(
        self,
        cores: Vec<JoinHandle<Result<(), CoreError>>>,
        lifecycle: &Lifecycle,
        drain_timeout: Duration,
    ) -> anyhow::Result<Ending> {
        let mut left = cores.len();
        for (index, core) in cores.into_iter().enumerate() {
            let to = self.sender.clone();
            thread::Builder::new()
                .name(format!("watch/{index}"))
                .spawn(move || {
                    // The receiver is gone once the process is about to end.
                    let _ = to.send(Event::CoreEnded {
                        index,
                        outcome: core.join(),
                    });
                })?;
        }

        let mut ending = Ending::Drained;
        let mut deadline = None;
        let mut is_handed_over = false;
        while left > 0 {
            match self.next(deadline) {
                Some(Event::Stop(cause @ Cause::Signal(SIGHUP))) if self.reloads.is_some() => {
                    tracing::info!("{cause}: reading files again");
                    self.reloads.iter().for_each(Reloads::request);
                }
                Some(Event::HandedOver) => {
                    tracing::info!(
                        "ending once what is left here has been served, at most in {} ms",
                        drain_timeout.as_millis()
                    );
                    is_handed_over = true;
                    deadline = Some(Instant::now() + drain_timeout);
                }
                Some(Event::Ignored(cause)) => tracing::info!("{cause}: ignored"),
                Some(Event::Stop(Cause::Signal(SIGHUP))) if lifecycle.phase() > Phase::Serve => {}
                Some(Event::Stop(cause)) if lifecycle.phase() == Phase::Serve => {
                    if !is_handed_over {
                        manager::tell(Notice::Stopping);
                    }
                    tracing::info!(
                        "{cause}: draining for at most {} ms; a second one stops at once",
                        drain_timeout.as_millis()
                    );
                    lifecycle.advance(Phase::Drain);
                    deadline = Some(Instant::now() + drain_timeout);
                }
                Some(Event::Stop(cause)) => {
                    lifecycle.advance(Phase::Stop);
                    ending = Ending::Forced(cause);
                    deadline = Some(Instant::now() + STOP_TIMEOUT);
                }
                Some(Event::CoreEnded { index, outcome }) => {
                    left -= 1;
                    let may_end = is_handed_over || lifecycle.phase() > Phase::Serve;
                    if let Err(error) = check(index, outcome, may_end) {
                        lifecycle.advance(Phase::Stop);
                        return Err(error);
                    }
                }
                Some(Event::Broken(error)) => {
                    lifecycle.advance(Phase::Stop);
                    return Err(error);
                }
                None if is_handed_over && lifecycle.phase() == Phase::Serve => {
                    // Those that wait for a last request to be told so with its reply.
                    lifecycle.advance(Phase::Drain);
                    deadline = Some(Instant::now() + DISMISS_TIMEOUT);
                }
                None if lifecycle.phase() < Phase::Stop => {
                    tracing::warn!("drain deadline passed: resetting what is left");
                    lifecycle.advance(Phase::Stop);
                    ending = Ending::DrainTimeout;
                    deadline = Some(Instant::now() + STOP_TIMEOUT);
                }
                None => anyhow::bail!(
                    "{left} cores did not stop within {} ms",
                    STOP_TIMEOUT.as_millis()
                ),
            }
        }
        Ok(ending)
    }

    /// The next event, or `None` if there is none until `deadline`.
    fn next(&self, deadline: Option<Instant>) -> Option<Event> {
        let event = match deadline {
            Some(deadline) => self
                .events
                .recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => self
                .events
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
        };
        event.ok()
    }
}

/// Takes over all signals that would end the process. `on_signal` is called with each of them on a thread of its own,
/// until it is false.
///
/// # Errors
///
/// If the process is out of descriptors or threads.
pub fn catch_signals(mut on_signal: impl FnMut(i32) -> bool + Send + 'static) -> io::Result<()> {
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    let others = MEANINGLESS.iter().copied().chain(real_time);
    let mut signals = Signals::new(ENDING.iter().copied().chain(hangup).chain(others))?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || signals.forever().all(&mut on_signal))?;
    Ok(())
}

/// Whether a signal that was caught is to end the server.
pub fn is_ending(signal: i32) -> bool {
    ENDING.contains(&signal) || signal == SIGHUP
}

fn event_of(signal: i32) -> Event {
    let cause = Cause::Signal(signal);
    match is_ending(signal) {
        true => Event::Stop(cause),
        false => Event::Ignored(cause),
    }
}

/// Whether the process was started with `signal` ignored; false without /proc.
fn is_ignored(signal: i32) -> bool {
    let status = Process::myself().and_then(|process| process.status());
    status.is_ok_and(|status| status.sigign >> (signal - 1) & 1 == 1)
}

/// A core may end without an error, but not while it should serve.
fn check(
    index: usize,
    outcome: thread::Result<Result<(), CoreError>>,
    may_end: bool,
) -> anyhow::Result<()> {
    match outcome {
        Ok(Ok(())) if may_end => Ok(()),
        Ok(Ok(())) => {
            anyhow::bail!("core {index} ended while it should serve; this is a bug in barewire")
        }
        Ok(Err(error)) => Err(anyhow::Error::new(error).context(format!("core {index} broke"))),
        Err(_) => anyhow::bail!("core {index} panicked; this is a bug in barewire"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A core that follows the phases, or ignores draining.
    fn core(lifecycle: &Lifecycle, until: Phase) -> JoinHandle<Result<(), CoreError>> {
        let lifecycle = lifecycle.clone();
        thread::spawn(move || {
            while lifecycle.phase() < until {
                thread::yield_now();
            }
            Ok(())
        })
    }

    fn supervisor(signals: &[i32]) -> Supervisor {
        let (sender, events) = mpsc::channel();
        for &signal in signals {
            sender.send(event_of(signal)).unwrap();
        }
        Supervisor {
            events,
            sender,
            reloads: None,
        }
    }

    const NEVER: Duration = Duration::from_secs(3600);

    #[test]
    fn one_signal_drains() {
        let lifecycle = Lifecycle::new();
        let cores = vec![
            core(&lifecycle, Phase::Drain),
            core(&lifecycle, Phase::Drain),
        ];
        let ending = supervisor(&[SIGTERM])
            .run(cores, &lifecycle, NEVER)
            .unwrap();
        assert_eq!(ending, Ending::Drained);
        assert_eq!(lifecycle.phase(), Phase::Drain);
    }

    #[test]
    fn a_second_signal_stops() {
        let lifecycle = Lifecycle::new();
        let cores = vec![core(&lifecycle, Phase::Stop)];
        let ending = supervisor(&[SIGTERM, SIGINT])
            .run(cores, &lifecycle, NEVER)
            .unwrap();
        assert_eq!(ending, Ending::Forced(Cause::Signal(SIGINT)));
    }

    #[test]
    fn a_terminal_that_goes_away_twice_drains_all_the_same() {
        let lifecycle = Lifecycle::new();
        let cores = vec![core(&lifecycle, Phase::Drain)];
        let ending = supervisor(&[SIGHUP, SIGHUP])
            .run(cores, &lifecycle, NEVER)
            .unwrap();
        assert_eq!(ending, Ending::Drained);
    }

    #[test]
    fn what_means_nothing_ends_nothing() {
        let lifecycle = Lifecycle::new();
        let cores = vec![core(&lifecycle, Phase::Drain)];
        let signals = [libc::SIGUSR1, libc::SIGRTMIN(), libc::SIGALRM, SIGTERM];
        let ending = supervisor(&signals).run(cores, &lifecycle, NEVER).unwrap();
        assert_eq!(ending, Ending::Drained);
    }

    #[test]
    fn a_remote_is_as_good_as_a_signal() {
        let lifecycle = Lifecycle::new();
        let cores = vec![core(&lifecycle, Phase::Stop)];
        let supervisor = supervisor(&[SIGTERM]);
        supervisor.remote().stop();
        let ending = supervisor.run(cores, &lifecycle, NEVER).unwrap();
        assert_eq!(ending, Ending::Forced(Cause::Control));
    }

    #[test]
    fn the_drain_deadline_stops() {
        let lifecycle = Lifecycle::new();
        let cores = vec![core(&lifecycle, Phase::Stop)];
        let ending = supervisor(&[SIGTERM])
            .run(cores, &lifecycle, Duration::ZERO)
            .unwrap();
        assert_eq!(ending, Ending::DrainTimeout);
    }

    #[test]
    fn a_watch_ends_the_server() {
        let lifecycle = Lifecycle::new();
        let cores = vec![core(&lifecycle, Phase::Stop)];
        let supervisor = supervisor(&[]);
        let watch = Watch(Box::new(|| "the NIC is gone".into()));
        supervisor.watch(watch).unwrap();
        let error = supervisor.run(cores, &lifecycle, NEVER).unwrap_err();
        assert_eq!(error.to_string(), "the NIC is gone");
        assert_eq!(lifecycle.phase(), Phase::Stop);
    }

    #[test]
    fn a_broken_core_takes_the_others_down() {
        for broken in [
            thread::spawn(|| {
                Err(CoreError {
                    call: "poll",
                    source: io::Error::other("the NIC is gone"),
                })
            }),
            thread::spawn(|| Ok(())),
            thread::spawn(|| panic!("a bug")),
        ] {
            let lifecycle = Lifecycle::new();
            let healthy = core(&lifecycle, Phase::Stop);
            let error = supervisor(&[])
                .run(vec![healthy, broken], &lifecycle, NEVER)
                .unwrap_err();
            assert!(error.to_string().starts_with("core 1"), "{error}");
            assert_eq!(lifecycle.phase(), Phase::Stop);
        }
    }
}
