//! Who owns which frame of a UMEM: the four rings, and the frames that are in none of them.
//!
//! A UMEM is one region of memory cut into frames, which user space and kernel hand to each other
//! through rings. Half of the frames receive, the other half sends; they never mix, so neither
//! side can starve the other:
//!
//! ```text
//!            ┌────────────── rx ring ◀──────── kernel ◀────── fill ring ◀─────────────┐
//!            ▼                                                                        │
//!        Received::batch ─────────────────── read, given back ───────────────▶ Reception::idle
//!
//!            ┌────────────── tx ring ────────▶ kernel ──────▶ completion ring ────────┐
//!            │                                                                        ▼
//!        Transmit::committed ◀── written ── Transmit::slot ◀────────────────── Transmit::free
//! ```
//!
//! A frame is named by a descriptor, which is a plain number that can be copied and says nothing
//! about who may touch the memory. So descriptors never leave this module. In it, this holds at
//! all times, and every `unsafe` rests on it:
//!
//! > **Each frame's descriptor is in exactly one place: one ring, one list, or the slot.** The kernel
//! > touches the frames in the fill and tx rings, and those it took from them and has not returned.
//! > User space touches a frame only while its descriptor is in `batch` or in `slot`.
//!
//! Before a queue is bound there are no rings: frames are copied from and to the [`Bridge`], and the kernel has none.
//!
//! Where packets may be longer than a frame (jumbo), the kernel spreads them over several, of which all but the last say
//! that more follow. What is received so is copied together (see [`Assembly`]); what is sent is written to a scratch
//! buffer and copied to as many frames as it needs.

use std::sync::Arc;
use std::{io, slice};

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue, Umem};

use barewire_service::tap::{Direction, TapEnd};
use barewire_tcp::link;
use barewire_tcp::link::LinkCounters;

use super::assembly::{Assembly, BATCH_FRAMES, CONTINUED, FRAMES_MAX};
use super::bridge::{Bridge, Seen};
use super::segments;

/// The receiving half of a queue, except for the batch that is being read.
pub(super) struct Reception {
    /// `None` until the queue is bound.
    rings: Option<(FillQueue, RxQueue)>,
    /// Frames that the fill ring had no room for.
    idle: Vec<FrameDesc>,
    /// So many of them are not for the kernel: a bridge is received from as well.
    kept: usize,
}

/// A batch of received frames.
pub struct Received {
    umem: Umem,
    /// Room for the rest of a packet that begins with the last frame of a batch.
    batch: [FrameDesc; FRAMES_MAX],
    len: usize,
    /// Which frames make a packet; `None`: each is one.
    assembly: Option<Assembly>,
}

/// The sending half of a queue.
pub struct Transmit {
    umem: Umem,
    /// `None` until the queue is bound.
    rings: Option<(TxQueue, CompQueue)>,
    /// Frames that are not in use.
    free: Vec<FrameDesc>,
    /// The frame that is being written.
    slot: Option<FrameDesc>,
    /// Where packets are written that may need several frames; empty where none does.
    scratch: Box<[u8]>,
    /// How much of a packet a frame holds.
    piece_bytes: usize,
    /// Frames to send, oldest first, that are not in the tx ring yet.
    committed: Vec<FrameDesc>,
    tx_ring_frames: u32,
    counters: Arc<LinkCounters>,
}

/// The four rings of a socket.
pub(super) type Rings = (TxQueue, RxQueue, FillQueue, CompQueue);

/// Frames that a bridge is asked for at once: what each of them may be cut into still fits into a batch.
const BRIDGED_FRAMES: usize = 16;

/// Shares out the frames of a UMEM whose queue is not bound yet.
///
/// `frames` must be all frames of `umem`, and none may have been handed to a ring. A packet takes up to `packet_frames` of them, each
/// of which holds `piece_bytes` of it.
pub(super) fn share_out(
    umem: &Umem,
    mut frames: Vec<FrameDesc>,
    (piece_bytes, packet_frames): (usize, u32),
    rx_ring_frames: u32,
    counters: &Arc<LinkCounters>,
) -> (Reception, Received, Transmit) {
    let scratch_bytes = match packet_frames {
        1 => 0,
        frames => frames as usize * piece_bytes,
    };
    let free = frames.split_off(rx_ring_frames as usize);
    let tx_ring_frames = free.len() as u32;
    let reception = Reception {
        rings: None,
        idle: frames,
        kept: 0,
    };
    let received = Received {
        umem: umem.clone(),
        batch: [FrameDesc::default(); FRAMES_MAX],
        len: 0,
        assembly: (packet_frames > 1).then(|| Assembly::new(piece_bytes)),
    };
    let transmit = Transmit {
        umem: umem.clone(),
        rings: None,
        committed: Vec::with_capacity(free.len()),
        free,
        slot: None,
        scratch: vec![0; scratch_bytes].into_boxed_slice(),
        piece_bytes,
        tx_ring_frames,
        counters: Arc::clone(counters),
    };
    (reception, received, transmit)
}

/// The queue is bound from here on, by a socket that was just opened.
///
/// The rings must be those of a socket on the UMEM that `reception` and `transmit` share, which must not be shared with
/// another.
pub(super) fn bind(
    reception: &mut Reception,
    transmit: &mut Transmit,
    (tx, rx, fill, completion): Rings,
) {
    reception.rings = Some((fill, rx));
    transmit.rings = Some((tx, completion));
}

impl Reception {
    /// Takes back the frames of `received` and gives the kernel all it has room for.
    ///
    /// Returns how many were given.
    pub fn refill(&mut self, received: &mut Received) -> usize {
        self.idle.extend_from_slice(&received.batch[..received.len]);
        received.len = 0;
        let Some((fill, _)) = &mut self.rings else {
            return 0;
        };

        // The ring takes all or nothing, and may look fuller than it is while the kernel is at it.
        let room = fill.nb_free(self.idle.len() as u32) as usize;
        let kept = self
            .idle
            .len()
            .saturating_sub(room)
            .max(self.kept.min(self.idle.len()));
        // SAFETY: all of `idle` are frames of this ring's UMEM that user space owns and that are
        // nowhere else. Those that the ring takes leave the list with the next line.
        let given = unsafe { fill.produce(&self.idle[kept..]) };
        self.idle.truncate(self.idle.len() - given);
        given
    }

    /// Keeps a batch of frames for a bridge, or gives them to the kernel from here on.
    pub fn keep_for_bridge(&mut self, is_there: bool) {
        self.kept = if is_there { BATCH_FRAMES } else { 0 };
    }

    /// Frames that wait for room in the fill ring.
    pub fn idle(&self) -> usize {
        self.idle.len().saturating_sub(self.kept)
    }

    /// Takes the next batch from the rx ring. The last one must have been taken back.
    pub fn receive(&mut self, received: &mut Received) {
        assert_eq!(received.len, 0, "a batch was not given back");
        let Some((_, rx)) = &mut self.rings else {
            return;
        };
        // SAFETY: the ring and the batch are of the same UMEM (see `share_out`). The batch's old
        // descriptors are overwritten, but they are in `idle` or the fill ring already: `len` is 0.
        received.len = unsafe { rx.consume(&mut received.batch[..BATCH_FRAMES]) };
        if received.assembly.is_some() {
            self.receive_rest(received);
            received.assemble();
        }
    }

    /// Takes the frames that belong to the last packet. The kernel hands out whole packets, so they are there.
    fn receive_rest(&mut self, received: &mut Received) {
        let Some((_, rx)) = &mut self.rings else {
            return;
        };
        while let Some(last) = received.len.checked_sub(1)
            && received.batch[last].has_more_frames()
            && received.len < received.batch.len()
        {
            // SAFETY: as in `receive`.
            let count = unsafe { rx.consume_one(&mut received.batch[received.len]) };
            received.len += count;
            if count == 0 {
                return;
            }
        }
    }

    /// Takes the next batch from `bridge`, in packets of at most `packet_bytes_max`. The last one must have been taken back.
    pub fn receive_from(
        &mut self,
        bridge: &mut Bridge,
        received: &mut Received,
        packet_bytes_max: usize,
    ) {
        assert_eq!(received.len, 0, "a batch was not given back");
        let mut piece = Vec::new();
        for _ in 0..BRIDGED_FRAMES {
            let Some(Seen { frame, is_partial }) = bridge.receive() else {
                break;
            };
            match is_partial || frame.len() > packet_bytes_max {
                true => segments::cut(frame, packet_bytes_max, &mut piece, |piece| {
                    self.take_copy(received, piece);
                }),
                false => self.take_copy(received, frame),
            }
        }
        received.assemble();
    }

    /// Adds a copy of `frame` to the batch, if there is room for it.
    fn take_copy(&mut self, received: &mut Received, frame: &[u8]) {
        if received.len == BATCH_FRAMES {
            return;
        }
        let Some(mut desc) = self.idle.pop() else {
            return;
        };
        desc.set_options(0);
        // SAFETY: a frame of this UMEM, owned by user space, its descriptor nowhere else.
        let mut data = unsafe { received.umem.data_mut(&mut desc) };
        if frame.len() > data.cursor().buf_len() {
            self.idle.push(desc);
            return;
        }
        data.cursor().set_pos(frame.len());
        data.contents_mut().copy_from_slice(frame);
        received.batch[received.len] = desc;
        received.len += 1;
    }

    /// Whether the driver sleeps until it is woken by a system call.
    pub fn needs_wakeup(&self) -> bool {
        (self.rings.as_ref()).is_some_and(|(fill, _)| fill.needs_wakeup())
    }
}

impl Received {
    /// Bytes in the whole batch.
    pub fn bytes(&self) -> u64 {
        self.batch[..self.len]
            .iter()
            .map(|frame| frame.lengths().data() as u64)
            .sum()
    }

    /// Puts together the packets that came in several frames.
    fn assemble(&mut self) {
        // Taken out, so that the frames can be borrowed meanwhile.
        let Some(mut assembly) = self.assembly.take() else {
            return;
        };
        assembly.clear();
        for index in 0..self.len {
            let continues = self.batch[index].has_more_frames();
            assembly.add(index, continues, || self.piece(index));
        }
        self.assembly = Some(assembly);
    }

    /// What is in the frame at `index` of the batch.
    #[inline]
    fn piece(&self, index: usize) -> &[u8] {
        // SAFETY: the kernel wrote this descriptor, so it lies within the UMEM, and the kernel does
        // not touch the frame again before `refill` gives it back, which takes `self` mutably.
        unsafe { self.umem.data(&self.batch[..self.len][index]) }.contents()
    }
}

impl link::Received for Received {
    #[inline]
    fn len(&self) -> usize {
        match &self.assembly {
            None => self.len,
            Some(assembly) => assembly.len(),
        }
    }

    #[inline]
    fn frame(&self, index: usize) -> &[u8] {
        match &self.assembly {
            None => self.piece(index),
            Some(assembly) => assembly.packet(index, |index| self.piece(index)),
        }
    }
}

impl link::Transmit for Transmit {
    #[inline]
    fn free_slots(&self) -> usize {
        if !self.scratch.is_empty() {
            return self.free.len() / self.packet_frames();
        }
        self.free.len() + usize::from(self.slot.is_some())
    }

    #[inline]
    fn slot(&mut self) -> Option<&mut [u8]> {
        if !self.scratch.is_empty() {
            let is_free = self.free.len() >= self.packet_frames();
            self.counters.tx_no_slot.add(u64::from(!is_free));
            return is_free.then_some(&mut *self.scratch);
        }
        if self.slot.is_none() {
            self.slot = self.free.pop();
            self.counters.tx_no_slot.add(u64::from(self.slot.is_none()));
        }
        let slot = self.slot.as_mut()?;
        // SAFETY: a frame of this UMEM, owned by user space, its descriptor nowhere else.
        let mut data = unsafe { self.umem.data_mut(slot) };
        data.cursor().set_pos(usize::MAX);
        let (start, len) = (data.contents_mut().as_mut_ptr(), data.contents().len());
        // SAFETY: the same bytes, for as long as `self` stays borrowed: only `commit` can give the
        // frame away, and it takes `self` mutably. The UMEM outlives the borrow: `self` owns a handle.
        Some(unsafe { slice::from_raw_parts_mut(start, len) })
    }

    #[inline]
    fn commit(&mut self, len: usize) {
        if !self.scratch.is_empty() {
            return self.commit_scratch(len);
        }
        let mut frame = self.slot.take().expect("a slot to commit");
        // SAFETY: a frame of this UMEM, owned by user space, its descriptor nowhere else.
        let mut data = unsafe { self.umem.data_mut(&mut frame) };
        let mut cursor = data.cursor();
        assert!(len <= cursor.buf_len(), "a frame longer than its slot");
        cursor.set_pos(len);
        self.committed.push(frame);
    }
}

impl Transmit {
    /// How many frames a packet may need.
    fn packet_frames(&self) -> usize {
        self.scratch.len() / self.piece_bytes
    }

    /// Copies the packet in the scratch buffer to as many frames as it needs.
    fn commit_scratch(&mut self, len: usize) {
        let pieces = self.scratch[..len].chunks(self.piece_bytes);
        let last = pieces.len() - 1;
        for (at, piece) in pieces.enumerate() {
            let mut frame = self.free.pop().expect("as many frames as a slot has");
            // SAFETY: a frame of this UMEM, owned by user space, its descriptor nowhere else.
            let mut data = unsafe { self.umem.data_mut(&mut frame) };
            data.cursor().set_pos(piece.len());
            data.contents_mut().copy_from_slice(piece);
            frame.set_options(if at < last { CONTINUED } else { 0 });
            self.committed.push(frame);
        }
    }

    /// Takes back the frames that were sent.
    pub fn reclaim(&mut self) {
        if self.unsent_or_in_flight() == 0 {
            return;
        }
        let Some((_, completion)) = &mut self.rings else {
            return;
        };
        let mut sent = [FrameDesc::default(); BATCH_FRAMES];
        loop {
            // SAFETY: the ring is of this UMEM (see `share_out`). What it yields was in the tx ring,
            // has left it, and goes to the free list: one place at a time.
            let count = unsafe { completion.consume(&mut sent) };
            self.free.extend_from_slice(&sent[..count]);
            if count < sent.len() {
                return;
            }
        }
    }

    /// Moves committed frames to the tx ring, all that it has room for, in order; `tap` sees them.
    ///
    /// Returns how many packets and bytes were moved.
    pub fn submit(&mut self, tap: &mut TapEnd) -> (usize, u64) {
        if self.committed.is_empty() {
            return (0, 0);
        }
        let Some((tx, _)) = &mut self.rings else {
            return (0, 0);
        };
        let room = tx.nb_free(self.committed.len() as u32) as usize;
        let next = &self.committed[..room.min(self.committed.len())];
        let bytes = next.iter().map(|frame| frame.lengths().data() as u64).sum();
        let packets = next.iter().filter(|frame| !frame.has_more_frames()).count();
        if tap.is_watched() {
            let mut begun = Vec::new();
            for frame in next {
                // SAFETY: a frame of this UMEM, owned by user space until the ring takes it below.
                let piece = unsafe { self.umem.data(frame) }.contents();
                if frame.has_more_frames() {
                    begun.extend_from_slice(piece);
                } else if begun.is_empty() {
                    tap.record(Direction::Sent, piece);
                } else {
                    begun.extend_from_slice(piece);
                    tap.record(Direction::Sent, &begun);
                    begun.clear();
                }
            }
        }
        // SAFETY: all of `committed` are frames of this ring's UMEM that user space owns and that
        // are nowhere else. The ring takes all of `next`, having room for them, or none; those that
        // it takes leave the list with the next line.
        let moved = unsafe { tx.produce(next) };
        self.committed.drain(..moved);
        if moved > 0 { (packets, bytes) } else { (0, 0) }
    }

    /// Sends committed frames by `bridge`, all of them, in order; `tap` sees them.
    ///
    /// Returns how many packets and bytes.
    pub(super) fn submit_to(&mut self, bridge: &Bridge, tap: &mut TapEnd) -> (usize, u64) {
        let (mut packets, mut bytes) = (0, 0);
        let mut begun = Vec::new();
        for frame in &self.committed {
            // SAFETY: a frame of this UMEM, owned by user space, which goes to the free list below.
            begun.extend_from_slice(unsafe { self.umem.data(frame) }.contents());
            if !frame.has_more_frames() {
                bridge.send(&begun);
                tap.record(Direction::Sent, &begun);
                packets += 1;
                bytes += begun.len() as u64;
                begun.clear();
            }
        }
        self.free.append(&mut self.committed);
        (packets, bytes)
    }

    /// Frames that the kernel has not begun to send.
    pub fn unsent(&mut self) -> usize {
        if self.unsent_or_in_flight() == 0 {
            return 0;
        }
        let ring_free =
            (self.rings.as_mut()).map_or(self.tx_ring_frames, |(tx, _)| tx.nb_free_exact());
        self.committed.len() + (self.tx_ring_frames - ring_free) as usize
    }

    /// Frames that were committed and have not come back.
    pub fn unsent_or_in_flight(&self) -> usize {
        self.tx_ring_frames as usize - self.free.len() - usize::from(self.slot.is_some())
    }

    /// Whether the kernel sends only when it is told to.
    pub fn needs_wakeup(&self) -> bool {
        (self.rings.as_ref()).is_some_and(|(tx, _)| tx.needs_wakeup())
    }

    /// Tells the kernel to send.
    pub fn wakeup(&self) -> io::Result<()> {
        match &self.rings {
            Some((tx, _)) => tx.wakeup(),
            None => Ok(()),
        }
    }
}
