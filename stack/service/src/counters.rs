//! Counters that one core writes and any thread may read.
//!
//! Each core owns its counters and is their only writer, so an increment is a plain load, add and
//! store: no locked instruction, no shared cache line. A reader on another core (status, metrics)
//! sees every value at some recent point in time; each counter alone is exact, two of them may be
//! a moment apart. Every field documents what it counts, and the text travels with the value so
//! that metrics and status explain themselves. The word behind a field's name is its [`Kind`]: whether it
//! grows, whether it counts a loss, whether it is a state of connections. Readers tell by it what to do with the
//! value, and need to know no counter by name.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows, written by one thread.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Only the owning thread may call this; a second writer would lose counts.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`. Only the owning thread may call this; a second writer would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value at some recent point in time.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A level that rises and falls, written by one thread.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the level. Only the owning thread may call this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The level at some recent point in time.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One counter or gauge as a reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The field's name, in snake case, without prefix or unit suffix.
    pub name: &'static str,
    /// What it counts: the first line of the field's documentation.
    pub help: &'static str,
    /// How to read the value.
    pub kind: Kind,
    /// Its value.
    pub value: u64,
}

/// How to read the value of a counter or gauge, as [`counters!`](crate::counters!) declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows: the difference of two values says how often something happened.
    Counter,
    /// A counter of what was dropped, refused or cut off: a peer did not get what it asked for.
    Loss,
    /// It rises and falls: each value stands for itself.
    Gauge,
    /// A gauge: how many connections are in one of the states, which together are all connections.
    State,
    /// A gauge: of how many connections that have ended a record is kept.
    Record,
    /// A gauge: the greatest value that another one can have, whose name is this one without `_max`.
    Limit,
}

impl Kind {
    /// Whether the value only grows.
    pub fn grows(self) -> bool {
        matches!(self, Kind::Counter | Kind::Loss)
    }
}

impl Sample {
    /// The name of the gauge whose greatest value this is.
    pub fn limited(&self) -> Option<&'static str> {
        let name = self.name.strip_suffix("_max");
        name.filter(|_| self.kind == Kind::Limit)
    }
}

/// The types of fields, under the name of their [`Kind`]; for [`counters!`](crate::counters!).
#[doc(hidden)]
pub mod fields {
    pub use super::{Counter, Gauge};
    pub type Loss = Counter;
    pub type State = Gauge;
    pub type Record = Gauge;
    pub type Limit = Gauge;
}

/// Counters that can list themselves, from any thread.
pub trait Samples: std::fmt::Debug + Send + Sync {
    /// Every field with its name, its help text and its current value.
    fn samples(&self) -> Vec<Sample>;
}

/// Declares a struct of [`Counter`]s and [`Gauge`]s that can list itself. Each field names its [`Kind`].
///
/// ```
/// use barewire_service::counters::{Kind, Samples};
/// barewire_service::counters! {
///     /// What a queue of jobs counts.
///     pub struct QueueCounters {
///         /// Jobs taken.
///         taken: Counter,
///         /// Jobs refused because the queue was full.
///         refused: Loss,
///         /// Jobs that wait.
///         waiting: Gauge,
///         /// Jobs that can wait at once.
///         waiting_max: Limit,
///     }
/// }
/// let queue = QueueCounters::default();
/// queue.refused.increment();
/// let refused = &queue.samples()[1];
/// assert_eq!((refused.kind, refused.value), (Kind::Loss, 1));
/// assert_eq!(refused.help, "Jobs refused because the queue was full.");
/// assert_eq!(queue.samples()[3].limited(), Some("waiting"));
/// ```
#[macro_export]
macro_rules! counters {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident {
            $( #[doc = $help:literal] $(#[doc = $more:literal])* $field:ident : $kind:ident, )+
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Default)]
        #[repr(align(64))]
        pub struct $name {
            $( #[doc = $help] $(#[doc = $more])* pub $field: $crate::counters::fields::$kind, )+
        }

        impl $crate::counters::Samples for $name {
            fn samples(&self) -> Vec<$crate::counters::Sample> {
                vec![$( $crate::counters::Sample {
                    name: stringify!($field),
                    help: $help.trim_ascii(),
                    kind: $crate::counters::Kind::$kind,
                    value: self.$field.get(),
                }, )+]
            }
        }
    };
}
