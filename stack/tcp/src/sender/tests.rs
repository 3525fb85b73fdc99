//! Packet stories, one for each rule.

use super::chunks::Chunks;
use super::rtt::since;
use super::sack::Block;
use super::*;

const MSS: u16 = 1000;
const ISS: u32 = u32::MAX - 1500;

/// A sender, its chunks, and a clock in milliseconds.
struct Story {
    sender: Sender,
    chunks: Chunks,
    config: Config,
    now: Instant,
}

/// What was sent: offset in the stream, length, sent again.
type Sent = (u32, u16, bool);

impl Story {
    fn new(has_sack: bool, window: u32, rtt_ms: u64) -> Story {
        let now = Instant::from_secs(10);
        let start = Start {
            nxt: ISS,
            window,
            window_seq: 1,
            mss: MSS,
            has_sack,
            remembered: Remembered::default(),
        };
        let mut sender = Sender::new(&start, now);
        if rtt_ms > 0 {
            sender.rtt.on_sample(Duration::from_millis(rtt_ms));
        }
        Story {
            sender,
            chunks: Chunks::new(64, 1024).unwrap(),
            config: Config::default(),
            now,
        }
    }

    fn with_sack() -> Story {
        Story::new(true, 1 << 20, 20)
    }

    fn without_sack() -> Story {
        Story::new(false, 1 << 20, 20)
    }

    fn after_ms(&mut self, ms: u64) -> &mut Self {
        self.now += Duration::from_millis(ms);
        self
    }

    fn queue(&mut self, len: usize) -> Vec<Sent> {
        let taken = self
            .sender
            .queue(&mut self.chunks, &self.config, &vec![7; len], self.now);
        assert_eq!(taken, len);
        self.sent()
    }

    fn sent(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        while let Some(segment) = self
            .sender
            .next_segment(&mut self.chunks, &self.config, self.now)
        {
            assert!(self.sender.is_consistent(&self.chunks));
            sent.push((
                segment.seq.wrapping_sub(ISS),
                segment.len,
                segment.is_resent,
            ));
        }
        sent
    }

    fn ack(&mut self, ack: u32) -> Vec<Sent> {
        self.ack_with(ack, 1 << 20, &[])
    }

    fn sack(&mut self, ack: u32, blocks: &[(u32, u32)]) -> Vec<Sent> {
        self.ack_with(ack, 1 << 20, blocks)
    }

    fn ack_with(&mut self, ack: u32, window: u32, blocks: &[(u32, u32)]) -> Vec<Sent> {
        let blocks: Vec<Block> = blocks
            .iter()
            .map(|&(start, end)| Block {
                start: ISS.wrapping_add(start),
                end: ISS.wrapping_add(end),
            })
            .collect();
        let ack = Ack {
            seq: 1,
            ack: ISS.wrapping_add(ack),
            window,
            has_payload: false,
            sack: &blocks,
            rtt: None,
        };
        self.sender
            .on_ack(&mut self.chunks, &self.config, &ack, self.now);
        assert!(self.sender.is_consistent(&self.chunks));
        self.sent()
    }

    /// Waits for the next deadline; returns how many milliseconds, what it was, and what was sent.
    fn wait(&mut self) -> (u64, Timeout, Vec<Sent>) {
        let at = self.sender.deadline().unwrap();
        let waited = since(self.now, at).total_millis();
        self.now = self.now.max(at);
        let timeout = self
            .sender
            .on_deadline(&mut self.chunks, &self.config, self.now);
        (waited, timeout, self.sent())
    }
}

fn segments(range: std::ops::Range<u32>, is_resent: bool) -> Vec<Sent> {
    range
        .map(|n| (n * u32::from(MSS), MSS, is_resent))
        .collect()
}

// RFC 6928.

#[test]
fn ten_segments_leave_at_once() {
    let mut story = Story::with_sack();
    assert_eq!(story.queue(20_000), segments(0..10, false));
    // RFC 5681, 3.1: two more for each that is acknowledged.
    assert_eq!(story.after_ms(20).ack(2000), segments(10..14, false));
}

// RFC 6298.

#[test]
fn a_segment_that_is_not_answered_is_sent_again_and_the_timeout_doubles() {
    let mut story = Story::new(true, 1 << 20, 0);
    story.queue(100);
    let (waited, timeout, sent) = story.wait();
    assert_eq!((waited, sent), (1000, vec![(0, 100, true)]));
    assert_eq!(timeout, Timeout::Retransmission { count: 1, len: 100 });
    let (waited, timeout, _) = story.wait();
    assert_eq!(waited, 2000);
    assert_eq!(timeout, Timeout::Retransmission { count: 2, len: 100 });
    // Karn: what was sent twice gives no sample, but ends the back-off.
    story.after_ms(5).ack(100);
    assert_eq!(story.sender.rtt().smoothed(), None);
    assert_eq!(story.sender.deadline(), None);
    assert!(story.sender.is_quiet());
    assert_eq!(story.chunks.used(), 0);
}

#[test]
fn after_a_timeout_all_that_is_lost_is_sent_in_slow_start() {
    let mut story = Story::with_sack();
    story.queue(10_000);
    let (_, timeout, sent) = story.wait();
    assert_eq!((timeout, sent), (Timeout::Probe, vec![(9000, MSS, true)]));
    let (_, timeout, sent) = story.wait();
    assert_eq!(timeout, Timeout::Retransmission { count: 1, len: MSS });
    assert_eq!(sent, segments(0..1, true));
    assert_eq!(story.after_ms(20).ack(1000), segments(1..3, true));
    assert_eq!(story.after_ms(20).ack(3000), segments(3..7, true));
    assert!(story.sender.is_recovering());
    story.after_ms(20).ack(10_000);
    assert!(story.sender.is_quiet() && !story.sender.is_recovering());
}

// RFC 8985.

#[test]
fn a_lone_lost_tail_is_repaired_after_two_round_trips_and_the_peers_ack_delay() {
    let mut story = Story::new(true, 1 << 20, 1);
    story.queue(150);
    let (waited, timeout, sent) = story.wait();
    assert_eq!((waited, timeout), (2 + 40, Timeout::Probe));
    assert_eq!(sent, [(0, 150, true)]);
    story.after_ms(1).ack(150);
    assert!(story.sender.is_quiet());
    assert_eq!(story.chunks.counters.timeouts.get(), 0);
}

#[test]
fn a_lost_tail_of_several_is_repaired_after_two_round_trips() {
    let mut story = Story::with_sack();
    story.queue(4000);
    story.after_ms(20).ack(2000);
    let (waited, timeout, sent) = story.wait();
    assert_eq!((waited, timeout), (40, Timeout::Probe));
    assert_eq!(sent, [(3000, MSS, true)]);
    // The probe's SACK shows that the third is missing as well.
    let sent = story.after_ms(20).sack(2000, &[(3000, 4000)]);
    let sent = if sent.is_empty() {
        story.wait().2
    } else {
        sent
    };
    assert_eq!(sent, [(2000, MSS, true)]);
    story.after_ms(20).ack(4000);
    assert!(story.sender.is_quiet());
    assert_eq!(story.chunks.counters.timeouts.get(), 0);
}

#[test]
fn a_lost_segment_is_sent_again_with_the_third_sack() {
    let mut story = Story::with_sack();
    story.queue(10_000);
    story.after_ms(20);
    assert_eq!(story.sack(0, &[(1000, 2000)]), []);
    assert_eq!(story.sack(0, &[(1000, 3000)]), []);
    assert_eq!(story.sack(0, &[(1000, 4000)]), [(0, MSS, true)]);
    story.sack(0, &[(1000, 10_000)]);
    story.after_ms(20).ack(10_000);
    assert!(story.sender.is_quiet());
    assert_eq!(story.sender.congestion_window(), 7_000);
}

#[test]
fn a_single_sack_is_enough_after_a_quarter_of_a_round_trip() {
    let mut story = Story::with_sack();
    story.queue(2000);
    assert_eq!(story.after_ms(20).sack(0, &[(1000, 2000)]), []);
    let (waited, timeout, sent) = story.wait();
    assert_eq!((waited, timeout), (5, Timeout::Reordering));
    assert_eq!(sent, [(0, MSS, true)]);
}

#[test]
fn reordered_segments_are_not_sent_again() {
    let mut story = Story::with_sack();
    story.queue(2000);
    story.after_ms(20).sack(0, &[(1000, 2000)]);
    story.after_ms(2).ack(2000);
    assert!(story.sender.is_quiet());
    assert_eq!(story.chunks.counters.resent_segs.get(), 0);
    assert_eq!(story.sender.congestion_window(), 10_000);
}

#[test]
fn a_lost_retransmission_is_noticed_without_a_timeout() {
    let mut story = Story::with_sack();
    story.queue(12_000);
    story.after_ms(20);
    assert_eq!(story.sack(0, &[(1000, 4000)])[0], (0, MSS, true));
    // What leaves now is sent after the retransmission; its delivery convicts it.
    let new = story.after_ms(1).sack(0, &[(1000, 10_000)]);
    assert!(new.contains(&(10_000, MSS, false)), "{new:?}");
    let sent = story.after_ms(21).sack(0, &[(1000, 11_000)]);
    assert!(sent.contains(&(0, MSS, true)), "{sent:?}");
    assert_eq!(story.chunks.counters.timeouts.get(), 0);
}

#[test]
fn a_probe_that_arrives_twice_reduces_nothing() {
    let mut story = Story::with_sack();
    story.queue(2000);
    assert_eq!(story.wait().1, Timeout::Probe);
    story.after_ms(5).ack(2000);
    let window = story.sender.congestion_window();
    story.sack(2000, &[(1000, 2000)]);
    story.queue(1000);
    story.after_ms(20).ack(3000);
    assert!(story.sender.congestion_window() >= window);
    assert_eq!(story.chunks.counters.dsack_recv.get(), 1);
    assert_eq!(story.chunks.counters.sack_discards.get(), 0);
    assert_eq!(story.chunks.counters.loss_probe_recoveries.get(), 0);
}

#[test]
fn a_probe_that_repaired_a_loss_reduces_the_window_with_the_next_ack() {
    let mut story = Story::with_sack();
    story.queue(2000);
    assert_eq!(story.wait().1, Timeout::Probe);
    story.after_ms(20).ack(2000);
    story.queue(1000);
    story.after_ms(20).ack(3000);
    assert_eq!(story.chunks.counters.loss_probe_recoveries.get(), 1);
    assert_eq!(story.sender.congestion_window(), 7_000);
}

#[test]
fn every_lone_tail_gets_its_probe() {
    let mut story = Story::new(true, 1 << 20, 1);
    for n in 1..10 {
        story.queue(150);
        assert_eq!(story.wait().1, Timeout::Probe);
        story.after_ms(1).ack(n * 150);
    }
    assert_eq!(story.chunks.counters.timeouts.get(), 0);
}

// RFC 6582, RFC 5681, RFC 3042: without SACK.

#[test]
fn the_third_duplicate_ack_sends_again_and_partial_acks_the_next() {
    let mut story = Story::without_sack();
    assert_eq!(story.queue(20_000), segments(0..10, false));
    story.after_ms(20);
    // Limited transmit needs room in the window beyond it: each duplicate lets a new segment go.
    assert_eq!(story.ack(0), segments(10..11, false));
    assert_eq!(story.ack(0), segments(11..12, false));
    let sent = story.ack(0);
    assert_eq!(sent[0], (0, MSS, true));
    // The fourth was lost as well.
    let sent = story.after_ms(20).ack(3000);
    assert_eq!(sent[0], (3000, MSS, true));
    story.after_ms(20).ack(12_000);
    assert!(!story.sender.is_recovering());
    assert_eq!(story.chunks.counters.timeouts.get(), 0);
}

#[test]
fn old_acks_and_acks_with_payload_or_a_new_window_are_no_duplicates() {
    let mut story = Story::without_sack();
    story.queue(10_000);
    story.after_ms(20).ack(5000);
    for _ in 0..5 {
        assert_eq!(story.ack(4000), []);
    }
    assert_eq!(story.chunks.counters.old_acks.get(), 5);
    for window in [500_000, 500_001, 500_002, 500_003] {
        story.ack_with(5000, window, &[]);
    }
    let with_payload = Ack {
        seq: 1,
        ack: ISS.wrapping_add(5000),
        window: 500_003,
        has_payload: true,
        sack: &[],
        rtt: None,
    };
    for _ in 0..5 {
        story
            .sender
            .on_ack(&mut story.chunks, &story.config, &with_payload, story.now);
    }
    assert_eq!(story.chunks.counters.dup_acks.get(), 0);
    assert!(!story.sender.is_recovering());
}

// RFC 2018, RFC 2883.

#[test]
fn blocks_of_what_was_never_sent_are_ignored() {
    let mut story = Story::with_sack();
    story.queue(2000);
    story.after_ms(20);
    for block in [(0, 1000), (1000, 3000), (1000, 1000), (2000, 1000)] {
        story.sack(0, &[block]);
    }
    assert_eq!(story.chunks.counters.sack_discards.get(), 4);
    assert_eq!(story.sender.kept.sacked, 0);
}

#[test]
fn a_peer_that_takes_back_what_it_sacked_gets_all_again() {
    let mut story = Story::with_sack();
    story.queue(3000);
    story.after_ms(20).sack(0, &[(1000, 3000)]);
    let (_, timeout, _) = story.wait();
    assert_eq!(timeout, Timeout::Reordering);
    // The head arrives, and what was SACKed before is not acknowledged with it.
    story.after_ms(20).ack(1000);
    let mut resent = Vec::new();
    while !story.sender.is_quiet() {
        let (_, _, sent) = story.wait();
        if let Some(&(seq, len, _)) = sent.last() {
            resent.push(seq);
            story.after_ms(20).ack(seq + u32::from(len));
        }
    }
    assert_eq!(resent, [1000, 2000]);
}

// RFC 9293, 3.8.6.

#[test]
fn nothing_is_sent_into_a_silly_window_until_half_of_it_is_open() {
    let mut story = Story::new(true, 2000, 20);
    assert_eq!(story.queue(5000), segments(0..2, false));
    assert_eq!(story.ack_with(2000, 1, &[]), []);
    assert_eq!(story.ack_with(2000, 999, &[]), []);
    assert_eq!(story.ack_with(2000, 1000, &[]), segments(2..3, false));
    // A window that was never large: half of it is worth a segment.
    let mut story = Story::new(true, 600, 20);
    assert_eq!(story.queue(5000), [(0, 600, false)]);
    assert_eq!(story.ack_with(600, 299, &[]), []);
    assert_eq!(story.ack_with(600, 300, &[]), [(600, 300, false)]);
}

#[test]
fn a_small_window_is_used_after_the_timeout() {
    let mut story = Story::new(true, 2000, 20);
    story.queue(5000);
    assert_eq!(story.ack_with(2000, 10, &[]), []);
    let (_, timeout, sent) = story.wait();
    assert_eq!(timeout, Timeout::Window);
    assert_eq!(sent, [(2000, 10, false)]);
}

#[test]
fn a_closed_window_is_probed_more_and_more_rarely_until_it_opens() {
    let mut story = Story::new(true, 1000, 20);
    story.queue(2000);
    story.after_ms(20).ack_with(1000, 0, &[]);
    for wait in [200, 400, 800, 1600, 3200, 4000, 4000] {
        let (waited, timeout, sent) = story.wait();
        assert_eq!((waited, timeout), (wait, Timeout::Window));
        assert_eq!(sent, [(999, 0, false)]);
        assert_eq!(story.ack_with(1000, 0, &[]), []);
    }
    assert_eq!(story.ack_with(1000, 1000, &[]), segments(1..2, false));
}

#[test]
fn a_window_that_shrinks_below_what_is_in_flight_is_respected() {
    let mut story = Story::with_sack();
    story.queue(10_000);
    assert_eq!(story.after_ms(20).ack_with(1000, 2000, &[]), []);
    story
        .sender
        .queue(&mut story.chunks, &story.config, &[1; 5000], story.now);
    assert_eq!(story.ack_with(7000, 2000, &[]), []);
    assert_eq!(story.sent(), []);
}

// RFC 5681, 4.1.

#[test]
fn after_an_idle_time_the_window_begins_anew() {
    let mut story = Story::with_sack();
    let mut acked = 0;
    for _ in 0..5 {
        let sent = story.queue(40_000).len() as u32;
        acked += sent * u32::from(MSS);
        story.after_ms(20);
        let mut next = story.ack(acked).len() as u32;
        while next > 0 {
            acked += next * u32::from(MSS);
            next = story.after_ms(20).ack(acked).len() as u32;
        }
    }
    assert!(story.sender.congestion_window() > 20_000);
    let sent = story.after_ms(10_000).queue(40_000);
    assert_eq!(sent.len(), 10);
}

// RFC 1191, RFC 4821.

#[test]
fn a_smaller_path_mtu_splits_what_is_in_flight_without_a_reduction() {
    let mut story = Story::with_sack();
    story.queue(3000);
    story.sender.set_mss(&mut story.chunks, 600);
    let sent = story.sent();
    let expected: Vec<Sent> = (0..3)
        .flat_map(|n| [(n * 1000, 600, true), (n * 1000 + 600, 400, true)])
        .collect();
    assert_eq!(sent, expected);
    story.after_ms(20).ack(3000);
    assert!(story.sender.is_quiet());
    assert!(story.sender.congestion_window() >= 10_000);
}

// Bounds.

#[test]
fn a_partial_acknowledgment_keeps_the_rest() {
    let mut story = Story::with_sack();
    story.queue(1000);
    story.after_ms(20).ack(300);
    let (_, _, sent) = story.wait();
    assert_eq!(sent, [(300, 700, true)]);
}

#[test]
fn one_connection_has_a_share_of_the_chunks_and_the_next_still_has_two_segments() {
    let mut chunks = Chunks::new(1, 64).unwrap();
    let config = Config::default();
    let start = Start {
        nxt: 1,
        window: 1 << 20,
        window_seq: 1,
        mss: 1_000,
        has_sack: true,
        remembered: Remembered::default(),
    };
    let mut greedy = Sender::new(&start, Instant::ZERO);
    let kept = greedy.queue(&mut chunks, &config, &[0; 100_000], Instant::ZERO);
    assert!((2_000..=64 * LARGE_BYTES / SHARE_OF_FREE_BYTES).contains(&kept));
    greedy.count_limit(&chunks, &config, kept);
    assert_eq!(chunks.counters.queues_throttled.get(), 1);
    let mut modest = Sender::new(&start, Instant::ZERO);
    assert_eq!(
        modest.queue(&mut chunks, &config, &[0; 2_000], Instant::ZERO),
        2_000
    );
    let bounded = Config {
        queue_bytes_max: 2_500,
        ..config
    };
    assert_eq!(modest.room_to_queue(&chunks, &bounded), 500);
    modest.count_limit(&chunks, &bounded, 501);
    assert_eq!(chunks.counters.queues_full.get(), 1);
}

#[test]
fn exhausted_chunks_are_an_ordinary_result() {
    let mut story = Story::with_sack();
    story.chunks = Chunks::new(1, 1).unwrap();
    let (sender, chunks, config) = (&mut story.sender, &mut story.chunks, &story.config);
    sender
        .push_sent(chunks, config, &[1; 100], story.now)
        .unwrap();
    sender
        .push_sent(chunks, config, &[1; 100], story.now)
        .unwrap();
    assert!(!chunks.has_room(1));
    assert_eq!(
        sender.push_sent(chunks, config, &[1; 100], story.now),
        Err(Exhausted)
    );
    assert_eq!(sender.queue(chunks, config, &[1; 100], story.now), 0);
    assert!(sender.is_consistent(chunks));
}

#[test]
fn what_was_learnt_is_remembered() {
    let mut story = Story::with_sack();
    story.queue(10_000);
    story.after_ms(20).sack(0, &[(1000, 10_000)]);
    story.after_ms(20).ack(10_000);
    let remembered = story.sender.remember();
    assert_eq!(remembered.cwnd, 7_000);
    assert_eq!(remembered.ssthresh, 7_000);
    let start = Start {
        nxt: story.sender.nxt(),
        window: 1 << 20,
        window_seq: 1,
        mss: MSS,
        has_sack: true,
        remembered,
    };
    assert_eq!(Sender::new(&start, story.now).remember(), remembered);
}

#[test]
fn an_ack_of_the_only_segment_does_what_any_ack_does() {
    let cases = [
        (true, 100, 1 << 20),
        (false, 1_000, 1 << 20),
        (true, 700, 900),
    ];
    for (has_sack, len, window) in cases {
        let acked = |take: fn(&mut Sender, &mut Chunks, &Config, &Ack<'_>, Instant) -> Acked| {
            let mut story = Story::new(has_sack, 1 << 20, 20);
            story.queue(len);
            story.after_ms(30);
            let ack = Ack {
                seq: 2,
                ack: ISS.wrapping_add(len as u32),
                window,
                has_payload: true,
                sack: &[],
                rtt: None,
            };
            let Story {
                sender,
                chunks,
                config,
                now,
            } = &mut story;
            let acked = take(sender, chunks, config, &ack, *now);
            (acked, format!("{sender:?}"), chunks.used())
        };
        assert_eq!(acked(Sender::on_ack), acked(Sender::on_any_ack));
    }
}

#[test]
fn what_was_granted_is_queued_although_some_of_it_has_left() {
    let Story {
        mut sender,
        config,
        now,
        ..
    } = Story::with_sack();
    let mut chunks = Chunks::new(0, 24).unwrap();
    let room = sender.room_in_chunks(&chunks, &config);
    assert!((6_000..12_000).contains(&room), "a quarter of the chunks");
    let reply = vec![7; room];
    let (whole, rest) = reply.split_at(5 * usize::from(MSS));
    for segment in whole.chunks(usize::from(MSS)) {
        sender
            .push_sent(&mut chunks, &config, segment, now)
            .unwrap();
    }
    assert!(sender.room_to_queue(&chunks, &config) < rest.len());
    let queued = sender.queue_granted(&mut chunks, &config, rest, now);
    assert_eq!(queued, rest.len());
    assert_eq!(sender.kept(), reply.len());
    assert!(sender.is_consistent(&chunks));
}
