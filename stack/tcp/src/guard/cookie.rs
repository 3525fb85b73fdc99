//! SYN cookies: a half-open connection that is kept in the peer's memory instead of ours (RFC 4987,
//! section 3.6).
//!
//! Our initial sequence number carries all we would have had to remember, and a MAC that only we can
//! make. The ACK that completes the handshake brings it back:
//!
//! ```text
//!   31               16 15                   8 7      5 4  3      0
//!  ┌───────────────────┬──────────────────────┬────────┬───┬───────┐
//!  │ MAC also over IRS │ MAC over flow, time, │  MSS   │ S │ scale │
//!  │                   │ options              │        │   │       │
//!  └───────────────────┴──────────────────────┴────────┴───┴───────┘
//! ```
//!
//! Only the first segment after the SYN shows the peer's initial sequence number. The later ones
//! acknowledge the cookie as well; if one of them arrives first, the MAC without that number
//! still tells it from a forged one.
//!
//! The low byte is not secret: it holds what the peer has just sent. A cookie is valid for one to two
//! [`PERIOD`]s. Blind guessing succeeds once in 2^23 tries, only while cookies are in use, and gains a
//! connection from an address whose owner cannot use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use siphasher::sip::SipHasher24;

use crate::control::SynOptions;
use crate::packet::FlowKey;
use barewire_service::time::{Duration, Instant};

/// The time a cookie's clock takes for one tick.
pub const PERIOD: Duration = Duration::from_secs(64);

/// Whether there may be peers that hold a cookie, of whichever shard: the ACK that brings it back may arrive
/// at another one.
#[derive(Debug, Clone)]
pub(crate) struct CookieUse {
    /// When the last one was sent, about.
    sent_at_us: Arc<AtomicI64>,
}

impl CookieUse {
    /// A cookie is sent.
    pub fn note(&self, now: Instant) {
        let now_us = now.total_micros();
        // A flood must not move the cache line between the cores for each of its SYNs.
        if now_us.saturating_sub(self.sent_at_us.load(Ordering::Relaxed)) > 1_000_000 {
            self.sent_at_us.store(now_us, Ordering::Relaxed);
        }
    }

    /// Whether one was sent that is still valid.
    pub fn is_recent(&self, now: Instant) -> bool {
        let sent_at_us = self.sent_at_us.load(Ordering::Relaxed);
        let good_us = (PERIOD * 2).total_micros() as i64;
        now.total_micros() < sent_at_us.saturating_add(good_us)
    }
}

impl Default for CookieUse {
    fn default() -> Self {
        CookieUse {
            sent_at_us: Arc::new(AtomicI64::new(i64::MIN)),
        }
    }
}

/// Makes and recognises cookies.
#[derive(Debug, Clone)]
pub struct SynCookies {
    hasher: SipHasher24,
}

impl SynCookies {
    /// Cookies with the secret `key`.
    pub fn new(key: &[u8; 16]) -> Self {
        SynCookies {
            hasher: SipHasher24::new_with_key(key),
        }
    }

    /// The sequence number for the SYN|ACK that answers a SYN with `options` and sequence number `irs`.
    pub fn issue(&self, flow: &FlowKey, irs: u32, options: &SynOptions, now: Instant) -> u32 {
        let encoded = encode(options);
        let message = Message::new(flow, period(now), encoded);
        u32::from(self.mac_with_irs(&message, irs)) << 16
            | u32::from(self.mac_of_flow(&message)) << 8
            | u32::from(encoded)
    }

    /// Looks at a segment that acknowledges `cookie`, and would be the first one of a connection whose
    /// SYN had the sequence number `irs`.
    pub fn redeem(&self, flow: &FlowKey, irs: u32, cookie: u32, now: Instant) -> Redeemed {
        let encoded = cookie as u8;
        let period = period(now);
        let mut redeemed = Redeemed::Foreign;
        for period in [period, period.wrapping_sub(1)] {
            let message = Message::new(flow, period, encoded);
            if self.mac_of_flow(&message) != (cookie >> 8) as u8 {
                continue;
            }
            if self.mac_with_irs(&message, irs) == (cookie >> 16) as u16 {
                return Redeemed::First(decode(encoded));
            }
            // The MAC of the flow has 8 bits: that of the other period may be the same.
            redeemed = Redeemed::Later;
        }
        redeemed
    }

    fn mac_of_flow(&self, message: &Message) -> u8 {
        (self.hasher.hash(message.of_flow()) >> 56) as u8
    }

    fn mac_with_irs(&self, message: &Message, irs: u32) -> u16 {
        (self.hasher.hash(&message.with_irs(irs)) >> 48) as u16
    }
}

/// The relation of a segment to a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redeemed {
    /// It is the first one after a SYN with these options, which a cookie of ours has answered.
    First(SynOptions),
    /// It acknowledges a cookie of ours, or happens to look so (1 in 128), but is not the first one.
    Later,
    /// It acknowledges something else.
    Foreign,
}

/// What the MACs cover.
struct Message([u8; Message::BYTES]);

impl Message {
    const BYTES: usize = 33;
    const IRS_BYTES: usize = 4;

    fn new(flow: &FlowKey, period: u32, encoded: u8) -> Message {
        let mut message = [0; Self::BYTES];
        message[..24].copy_from_slice(&flow.to_bytes());
        message[24..28].copy_from_slice(&period.to_be_bytes());
        message[28] = encoded;
        Message(message)
    }

    fn of_flow(&self) -> &[u8] {
        &self.0[..Self::BYTES - Self::IRS_BYTES]
    }

    fn with_irs(&self, irs: u32) -> [u8; Self::BYTES] {
        let mut message = self.0;
        message[Self::BYTES - Self::IRS_BYTES..].copy_from_slice(&irs.to_be_bytes());
        message
    }
}

/// The segment sizes that a cookie can hold: what common paths leave of 1,500 and 9,000 bytes. A peer
/// gets the largest that does not exceed its own. The first is the smallest that smoltcp sends.
const MSS: [u16; 8] = [48, 536, 1200, 1360, 1400, 1440, 1460, 8940];

const NO_SCALE: u8 = 15;

fn encode(options: &SynOptions) -> u8 {
    let mss = MSS.iter().rposition(|&mss| mss <= options.mss).unwrap_or(0) as u8;
    let scale = options.window_scale.map_or(NO_SCALE, |scale| scale.min(14));
    mss << 5 | u8::from(options.sack_permitted) << 4 | scale
}

fn decode(encoded: u8) -> SynOptions {
    let scale = encoded & 0xf;
    SynOptions {
        mss: MSS[usize::from(encoded >> 5)],
        window_scale: (scale != NO_SCALE).then_some(scale),
        sack_permitted: encoded & 0x10 != 0,
        timestamps: false,
    }
}

fn period(now: Instant) -> u32 {
    (now.total_micros() / PERIOD.total_micros() as i64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Instant = Instant::from_micros(1_000_000_000);

    fn flow() -> FlowKey {
        FlowKey::new([192, 0, 2, 1].into(), 5000, 0, 80)
    }

    proptest! {
        #[test]
        fn what_was_issued_is_redeemed_with_all_its_options(
            irs: u32, mss in 64u16.., scale in proptest::option::of(0u8..=14), sack: bool,
        ) {
            let cookies = SynCookies::new(&[3; 16]);
            let options = SynOptions { mss, window_scale: scale, sack_permitted: sack, timestamps: false };
            let cookie = cookies.issue(&flow(), irs, &options, NOW);
            let redeemed = cookies.redeem(&flow(), irs, cookie, NOW + PERIOD);
            let Redeemed::First(redeemed) = redeemed else { panic!("not recognised") };
            prop_assert!(redeemed.mss <= mss && MSS.contains(&redeemed.mss));
            prop_assert_eq!(redeemed.window_scale, scale);
            prop_assert_eq!(redeemed.sack_permitted, sack);
        }
    }

    #[test]
    fn cookies_of_the_last_period_are_redeemed_where_their_flow_has_the_same_mac_in_both() {
        let mut alike = 0;
        for number in 0..0x1000u16 {
            let [key, encoded] = [number >> 8, number & 0xff].map(|part| part as u8);
            let cookies = SynCookies::new(&[key; 16]);
            let [first, second] =
                [NOW, NOW + PERIOD].map(|now| cookies.issue(&flow(), 1, &decode(encoded), now));
            assert!(is_first(cookies.redeem(&flow(), 1, first, NOW + PERIOD)));
            alike += u32::from(first as u16 == second as u16);
        }
        assert!(alike > 0, "no pair of periods tests anything");
    }

    fn is_first(redeemed: Redeemed) -> bool {
        matches!(redeemed, Redeemed::First(_))
    }

    #[test]
    fn a_cookie_is_bound_to_its_flow_sequence_number_and_content() {
        let cookies = SynCookies::new(&[3; 16]);
        let options = SynOptions {
            mss: 1460,
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: false,
        };
        let cookie = cookies.issue(&flow(), 1, &options, NOW);
        assert!(is_first(cookies.redeem(&flow(), 1, cookie, NOW)));

        let other = FlowKey::new([192, 0, 2, 1].into(), 5001, 0, 80);
        assert!(!is_first(cookies.redeem(&other, 1, cookie, NOW)));
        for bit in 0..32 {
            let change = 1 << bit;
            assert!(!is_first(cookies.redeem(&flow(), 1, cookie ^ change, NOW)));
            let later = cookies.redeem(&flow(), 1 ^ change, cookie, NOW);
            assert_eq!(later, Redeemed::Later);
        }
    }

    #[test]
    fn most_segments_of_strangers_are_told_from_those_of_a_first_flight() {
        let cookies = SynCookies::new(&[3; 16]);
        let strangers = (0..1000u32).filter(|&number| {
            let ack = number.wrapping_mul(0x9e37_79b1);
            cookies.redeem(&flow(), number, ack, NOW) == Redeemed::Foreign
        });
        assert!(strangers.count() > 980);
    }

    #[test]
    fn a_cookie_ends_after_two_periods() {
        let cookies = SynCookies::new(&[3; 16]);
        let cookie = cookies.issue(&flow(), 1, &SynOptions::default(), NOW);
        assert!(is_first(cookies.redeem(&flow(), 1, cookie, NOW + PERIOD)));
        assert!(!is_first(cookies.redeem(
            &flow(),
            1,
            cookie,
            NOW + PERIOD * 2
        )));
    }
}
