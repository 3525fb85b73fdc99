//! Connections as bytes, on their way from one shard to another one in a process that goes on in its place.
//!
//! ```text
//!   predecessor: Shard::depart ─▶ [ record │ sent │ queued │ received ] … ─▶ Shard::arrive: successor
//! ```
//!
//! A record has what a connection is (RFC 9293, section 3.3.1): the flow, the sequence numbers and windows, what the SYN has
//! offered, the link-layer header of the way back, and a byte of the service's. Behind it are the bytes that the peer has
//! not acknowledged, and those of the peer that the service has not taken. Addresses stand in full: both sides may count
//! them differently.
//!
//! Both ends are of one machine, so numbers are as this one has them, and the clocks agree.

use std::net::{IpAddr, Ipv6Addr};

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::control::{L2Header, SynOptions};
use crate::guard::segment::{Scales, Tcb};
use crate::sender::Remembered;

/// What arrives is not what a shard of this version writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the connections are not told as this version tells them")]
pub struct Malformed;

/// In which state a connection travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// SYN-RECEIVED: our SYN|ACK is on its way.
    HalfOpen = 1,
    /// ESTABLISHED.
    Open,
    /// TIME-WAIT, or one of the states before it.
    TimeWait,
}

impl Kind {
    fn of(byte: u8) -> Result<Kind, Malformed> {
        let kinds = [Kind::HalfOpen, Kind::Open, Kind::TimeWait];
        let kind = kinds.into_iter().find(|&kind| kind as u8 == byte);
        kind.ok_or(Malformed)
    }
}

/// A connection, without the bytes that it keeps. 128 bytes.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Record {
    remote: [u8; 16],
    local: [u8; 16],
    pub remote_port: u16,
    pub local_port: u16,
    kind: u8,
    /// What the service says of it; of one that leaves a record, how that is.
    pub rest: u8,
    l2_len: u8,
    /// [`SACK_PERMITTED`] and [`TIMESTAMPS`].
    flags: u8,
    l2: [u8; L2Header::BYTES_MAX],
    window_shifts: [u8; 2],
    mss: u16,
    /// Of the peer's SYN; [`NO_SCALE`] if there was none.
    window_scale: u8,
    reserved: u8,
    snd_una: u32,
    snd_nxt: u32,
    rcv_nxt: u32,
    rcv_wnd: u32,
    snd_wl1: u32,
    /// RCV.NXT as it was last sent to the peer.
    pub told: u32,
    /// TS.Recent, if the connection has timestamps.
    pub ts_recent: u32,
    snd_wnd: u16,
    snd_wnd_max: u16,
    /// Bytes behind the record that were sent and are not acknowledged.
    pub sent_len: u32,
    /// Bytes behind those that were not sent yet.
    pub queued_len: u32,
    /// Bytes behind those that have arrived, and wait for the service.
    pub received_len: u32,
    /// For how long it has waited for a message.
    pub idle_ms: u32,
    remembered: [u32; 4],
}

const NO_SCALE: u8 = u8::MAX;
const SACK_PERMITTED: u8 = 1;
const TIMESTAMPS: u8 = 2;

/// The addresses and ports of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub remote: (IpAddr, u16),
    pub local: (IpAddr, u16),
}

impl Record {
    pub fn new(kind: Kind, ends: Ends, l2: &L2Header, tcb: &Tcb) -> Record {
        Record {
            remote: octets(ends.remote.0),
            local: octets(ends.local.0),
            remote_port: ends.remote.1,
            local_port: ends.local.1,
            kind: kind as u8,
            l2_len: l2.len() as u8,
            l2: l2.key(),
            window_shifts: [tcb.scales.snd(), tcb.scales.rcv()],
            window_scale: NO_SCALE,
            snd_una: tcb.snd_una,
            snd_nxt: tcb.snd_nxt,
            rcv_nxt: tcb.rcv_nxt,
            rcv_wnd: tcb.rcv_wnd,
            snd_wl1: tcb.snd_wl1,
            snd_wnd: tcb.snd_wnd,
            snd_wnd_max: tcb.snd_wnd_max,
            ..Record::default()
        }
    }

    pub fn with_options(self, options: &SynOptions) -> Record {
        Record {
            mss: options.mss,
            window_scale: options.window_scale.unwrap_or(NO_SCALE),
            flags: u8::from(options.sack_permitted) * SACK_PERMITTED
                + u8::from(options.timestamps) * TIMESTAMPS,
            ..self
        }
    }

    pub fn with_remembered(self, remembered: &Remembered) -> Record {
        let Remembered {
            srtt_us,
            rttvar_us,
            cwnd,
            ssthresh,
        } = *remembered;
        Record {
            remembered: [srtt_us, rttvar_us, cwnd, ssthresh],
            ..self
        }
    }

    pub fn kind(&self) -> Result<Kind, Malformed> {
        Kind::of(self.kind)
    }

    pub fn ends(&self) -> Ends {
        Ends {
            remote: (address(self.remote), self.remote_port),
            local: (address(self.local), self.local_port),
        }
    }

    pub fn l2(&self) -> Result<L2Header, Malformed> {
        let bytes = self.l2.get(..usize::from(self.l2_len));
        bytes.and_then(L2Header::of_bytes).ok_or(Malformed)
    }

    pub fn options(&self) -> SynOptions {
        SynOptions {
            mss: self.mss,
            window_scale: (self.window_scale != NO_SCALE).then_some(self.window_scale),
            sack_permitted: self.flags & SACK_PERMITTED != 0,
            timestamps: self.flags & TIMESTAMPS != 0,
        }
    }

    /// Its numbers, with nothing in flight: what was sent is added by who keeps it.
    pub fn tcb(&self) -> Result<Tcb, Malformed> {
        let [snd, rcv] = self.window_shifts;
        if snd > 14 || rcv > 14 || self.snd_nxt.wrapping_sub(self.snd_una) != self.flight()? {
            return Err(Malformed);
        }
        Ok(Tcb {
            snd_una: self.snd_una,
            snd_nxt: self.snd_una,
            rcv_nxt: self.rcv_nxt,
            rcv_wnd: self.rcv_wnd,
            snd_wnd: self.snd_wnd,
            snd_wl1: self.snd_wl1,
            snd_wnd_max: self.snd_wnd_max,
            scales: Scales::new(snd, rcv),
            ..Tcb::default()
        })
    }

    /// Sequence numbers in flight.
    fn flight(&self) -> Result<u32, Malformed> {
        Ok(match self.kind()? {
            Kind::HalfOpen => 1,
            Kind::Open => self.sent_len,
            Kind::TimeWait => 0,
        })
    }

    pub fn remembered(&self) -> Remembered {
        let [srtt_us, rttvar_us, cwnd, ssthresh] = self.remembered;
        Remembered {
            srtt_us,
            rttvar_us,
            cwnd,
            ssthresh,
        }
    }

    /// Takes a record and the bytes behind it from the front of `bytes`.
    pub fn take<'b>(bytes: &mut &'b [u8]) -> Result<(Record, Behind<'b>), Malformed> {
        let (record, rest) = Record::read_from_prefix(bytes).map_err(|_| Malformed)?;
        *bytes = rest;
        let mut cut = |len: u32| {
            let (part, rest) = bytes.split_at_checked(len as usize).ok_or(Malformed)?;
            *bytes = rest;
            Ok(part)
        };
        let behind = Behind {
            sent: cut(record.sent_len)?,
            queued: cut(record.queued_len)?,
            received: cut(record.received_len)?,
        };
        Ok((record, behind))
    }
}

/// The bytes behind a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behind<'b> {
    /// Sent and not acknowledged.
    pub sent: &'b [u8],
    /// Not sent yet.
    pub queued: &'b [u8],
    /// Received, and not taken by the service.
    pub received: &'b [u8],
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn address(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_no_longer_than_a_connection_that_is_idle() {
        assert_eq!(size_of::<Record>(), 128);
    }

    #[test]
    fn what_is_cut_short_or_contradicts_itself_is_refused() {
        let ends = Ends {
            remote: ([192, 0, 2, 1].into(), 40_000),
            local: ([192, 0, 2, 2].into(), 80),
        };
        let l2 = L2Header::new([2; 6], [4; 6], false);
        let tcb = Tcb {
            snd_una: 7,
            snd_nxt: 10,
            ..Tcb::default()
        };
        let record = Record {
            sent_len: 3,
            received_len: 1,
            ..Record::new(Kind::Open, ends, &l2, &tcb)
        };
        let mut bytes = record.as_bytes().to_vec();
        bytes.extend(b"abcd");
        let (taken, behind) = Record::take(&mut &*bytes).unwrap();
        let expected = Behind {
            sent: b"abc",
            queued: b"",
            received: b"d",
        };
        assert_eq!(behind, expected);
        assert_eq!(taken.ends(), ends);
        assert_eq!(taken.l2().unwrap(), l2);
        assert_eq!(taken.tcb().unwrap().snd_nxt, 7);
        for len in 0..bytes.len() {
            assert_eq!(Record::take(&mut &bytes[..len]).err(), Some(Malformed));
        }
        for lie in [
            Record { kind: 9, ..record },
            Record {
                sent_len: 2,
                ..record
            },
            Record {
                window_shifts: [15, 0],
                ..record
            },
        ] {
            assert_eq!(lie.tcb().err(), Some(Malformed));
        }
        for l2_len in [0, 13, 19] {
            assert_eq!(Record { l2_len, ..record }.l2().err(), Some(Malformed));
        }
    }
}
