//! Counters that one core writes and anybody may read.
//!
//! Each core owns its counters and is their only writer, so an increment is a plain load, add and
//! store: no locked instruction, no shared cache line. A reader on another core (status, metrics)
//! sees every value at some recent point in time; each counter alone is exact, two of them may be
//! a moment apart. Every field documents what it counts, and the text travels with the value so
//! that metrics and status explain themselves. A gauge `name` with a neighbour `name_max` is how
//! much of a limited supply is in use.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows, written by one thread.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// What its samples are.
    pub const KIND: Kind = Kind::Counter;

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
    /// What its samples are.
    pub const KIND: Kind = Kind::Gauge;

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
    /// Whether it only grows.
    pub kind: Kind,
    /// Its value.
    pub value: u64,
}

/// What can be concluded from two values of the same sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows: the difference says how often something happened.
    Counter,
    /// It rises and falls: each value stands for itself.
    Gauge,
}

/// Counters that can list themselves, from any thread.
pub trait Samples: std::fmt::Debug + Send + Sync {
    /// Every field with its name, its help text and its current value.
    fn samples(&self) -> Vec<Sample>;
}

/// Declares a struct of [`Counter`]s and [`Gauge`]s that can list itself.
///
/// ```
/// use barewire_service::counters::Samples;
/// barewire_service::counters! {
///     /// What the door counted.
///     pub struct DoorCounters {
///         /// People who came in.
///         entered: Counter,
///         /// People inside now.
///         inside: Gauge,
///     }
/// }
/// let door = DoorCounters::default();
/// door.entered.increment();
/// assert_eq!(door.samples()[0].help, "People who came in.");
/// assert_eq!(door.samples()[0].value, 1);
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
            $( #[doc = $help] $(#[doc = $more])* pub $field: $crate::counters::$kind, )+
        }

        impl $crate::counters::Samples for $name {
            fn samples(&self) -> Vec<$crate::counters::Sample> {
                vec![$( $crate::counters::Sample {
                    name: stringify!($field),
                    help: $help.trim_ascii(),
                    kind: $crate::counters::$kind::KIND,
                    value: self.$field.get(),
                }, )+]
            }
        }
    };
}
