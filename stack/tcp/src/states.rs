//! What the service keeps of connections, for as long as it is more than a byte.
//!
//! ```text
//!   at rest, in the handle ── Service::resume ──▶ one state for all ── on_input ──┬─ Service::rest ──▶ at rest
//!                                                                                 └─ more to it ─▶ a place here
//! ```
//!
//! So an idle connection of HTTP/1.1 takes nothing here, and all requests that are answered at once are served with
//! the same state, which stays in the cache.

use barewire_memory::{OutOfMemory, prefetch};
use barewire_service::service::Service;

/// The states of a shard's connections that are not at rest. There is a place for each connection, whose memory comes
/// when it is used.
pub(crate) struct States<C> {
    places: Vec<C>,
    unused: Vec<u32>,
    /// The state with which a connection at rest is served.
    resumed: C,
}

/// Where the state of a connection is: the number of its place, or above all numbers, in the lowest byte, how it is
/// at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateHandle(u32);

const AT_REST: u32 = 0xffff_ff00;

impl StateHandle {
    /// Of a connection whose state is the default.
    pub const NEW: StateHandle = StateHandle(AT_REST);

    #[inline]
    fn at_rest(rest: u8) -> StateHandle {
        StateHandle(AT_REST | u32::from(rest))
    }

    #[inline]
    fn rest(self) -> u8 {
        debug_assert!(self.0 >= AT_REST);
        self.0 as u8
    }
}

impl<C: Default> States<C> {
    /// Places for so many connections.
    pub fn new(connections: usize) -> Result<States<C>, OutOfMemory> {
        let out_of_memory = |_| OutOfMemory {
            bytes: connections * Self::PLACE_BYTES,
        };
        let (mut places, mut unused) = (Vec::new(), Vec::new());
        places
            .try_reserve_exact(connections)
            .map_err(out_of_memory)?;
        unused
            .try_reserve_exact(connections)
            .map_err(out_of_memory)?;
        Ok(States {
            places,
            unused,
            resumed: C::default(),
        })
    }

    /// Bytes of memory for a connection that is not at rest.
    pub const PLACE_BYTES: usize = size_of::<C>() + size_of::<u32>();

    /// The state of a connection. After the service has seen it, [`States::settle`] must be called.
    #[inline]
    pub fn get<S: Service<Connection = C>>(&mut self, handle: StateHandle) -> &mut C {
        match self.places.get_mut(handle.0 as usize) {
            Some(state) => state,
            None => {
                S::resume(&mut self.resumed, handle.rest());
                &mut self.resumed
            }
        }
    }

    /// Takes or gives back a place for the state that [`States::get`] has lent for `handle`, as it turned out.
    #[inline]
    pub fn settle<S: Service<Connection = C>>(&mut self, handle: &mut StateHandle) {
        match self.places.get(handle.0 as usize) {
            None => match S::rest(&self.resumed) {
                Some(rest) => *handle = StateHandle::at_rest(rest),
                None => {
                    let state = std::mem::take(&mut self.resumed);
                    *handle = self.keep(state);
                }
            },
            Some(state) => {
                if let Some(rest) = S::rest(state) {
                    self.release(handle);
                    *handle = StateHandle::at_rest(rest);
                }
            }
        }
    }

    /// Makes `state` that of a connection whose state is the default.
    pub fn set<S: Service<Connection = C>>(&mut self, handle: &mut StateHandle, state: C) {
        debug_assert_eq!(*handle, StateHandle::NEW);
        *handle = match S::rest(&state) {
            Some(rest) => StateHandle::at_rest(rest),
            None => self.keep(state),
        };
    }

    /// Drops the state of a connection, which is over.
    pub fn release(&mut self, handle: &mut StateHandle) {
        if let Some(state) = self.places.get_mut(handle.0 as usize) {
            *state = C::default();
            self.unused.push(handle.0);
        }
        *handle = StateHandle::NEW;
    }

    /// Asks for the memory of a connection's state.
    #[inline]
    pub fn prefetch(&self, handle: StateHandle) {
        if let Some(state) = self.places.get(handle.0 as usize) {
            prefetch(state);
        }
    }

    fn keep(&mut self, state: C) -> StateHandle {
        match self.unused.pop() {
            Some(place) => {
                self.places[place as usize] = state;
                StateHandle(place)
            }
            None => {
                self.places.push(state);
                StateHandle(self.places.len() as u32 - 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_service::service::{Expect, Input, Next, Progress, Reply};

    /// Adds up what it is sent. At rest at multiples of ten, of which it remembers how many.
    struct Adder;

    impl Service for Adder {
        type Connection = u32;

        const REPLY_BYTES_MIN: usize = 1;

        fn on_input(&mut self, sum: &mut u32, input: Input<'_>, _: &mut Reply<'_>) -> Progress {
            *sum += input.bytes.len() as u32;
            Progress {
                consumed: input.bytes.len(),
                messages: 0,
                next: Next::Receive(Expect::Message),
            }
        }

        fn rest(sum: &u32) -> Option<u8> {
            let is_round = sum.is_multiple_of(10);
            is_round.then(|| u8::try_from(sum / 10).ok()).flatten()
        }

        fn resume(sum: &mut u32, rest: u8) {
            *sum = u32::from(rest) * 10;
        }
    }

    /// Lets the service of a connection have `len` bytes, and returns what it makes of them.
    fn add(states: &mut States<u32>, handle: &mut StateHandle, len: usize) -> u32 {
        let input = Input {
            bytes: &vec![0; len],
            full: false,
            ended: false,
        };
        let state = states.get::<Adder>(*handle);
        Adder.on_input(state, input, &mut Reply::new(&mut []));
        let sum = *state;
        states.settle::<Adder>(handle);
        sum
    }

    #[test]
    fn only_what_is_more_than_a_byte_takes_a_place() {
        let mut states = States::new(2).unwrap();
        let mut handles = [StateHandle::NEW; 2];
        assert_eq!(add(&mut states, &mut handles[0], 20), 20);
        assert!(states.places.is_empty());
        assert_eq!(add(&mut states, &mut handles[1], 7), 7);
        assert_eq!(add(&mut states, &mut handles[0], 1), 21);
        assert_eq!(states.places, [7, 21]);
        assert_eq!(add(&mut states, &mut handles[1], 3), 10);
        assert_eq!(states.unused, [0]);
        assert_eq!(add(&mut states, &mut handles[1], 0), 10);
        assert_eq!(add(&mut states, &mut handles[1], 5), 15);
        assert_eq!(states.places, [15, 21]);
    }

    #[test]
    fn a_connection_does_not_find_the_state_of_the_one_before() {
        let mut states = States::new(1).unwrap();
        let mut handle = StateHandle::NEW;
        states.set::<Adder>(&mut handle, 33);
        assert_eq!(add(&mut states, &mut handle, 1), 34);
        states.release(&mut handle);
        assert_eq!(add(&mut states, &mut handle, 50), 50);
        states.release(&mut handle);
        assert_eq!(add(&mut states, &mut handle, 2), 2);
        assert_eq!(states.places, [2]);
    }
}
