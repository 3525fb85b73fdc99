//! The file of a capture: pcapng, with an interface for each queue and the direction of each frame.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use barewire_service::tap::Direction;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::{DataLink, PcapError};

use super::Frame;

/// A pcapng file that is being written.
pub struct File<W: Write> {
    writer: PcapNgWriter<W>,
    queues: Vec<u32>,
    last_unix_time_ns: u64,
}

impl<W: Write> File<W> {
    /// Begins a file for frames of these queues, of which `snap_bytes` are kept.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn begin(out: W, queues: &[u32], snap_bytes: u32) -> io::Result<Self> {
        /// Time in units of 10 to the minus this many seconds.
        const NANOSECONDS: u8 = 9;
        let mut writer = PcapNgWriter::new(out).map_err(io_error)?;
        for queue in queues {
            let name = InterfaceDescriptionOption::IfName(Cow::Owned(format!("queue {queue}")));
            let block = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: snap_bytes,
                options: vec![name, InterfaceDescriptionOption::IfTsResol(NANOSECONDS)],
            };
            writer.write_pcapng_block(block).map_err(io_error)?;
        }
        Ok(File {
            writer,
            queues: queues.to_vec(),
            last_unix_time_ns: 0,
        })
    }

    /// Adds a frame.
    ///
    /// # Errors
    ///
    /// If it cannot be written, or is of another queue.
    pub fn add(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        // Bits 0 and 1 of epb_flags.
        let direction = match frame.direction {
            Direction::Received => 1,
            Direction::Sent => 2,
        };
        let interface = self.queues.iter().position(|queue| *queue == frame.queue);
        let block = EnhancedPacketBlock {
            interface_id: interface.ok_or(io::ErrorKind::InvalidData)? as u32,
            timestamp: Duration::from_nanos(frame.unix_time_ns),
            original_len: frame.frame_bytes,
            data: Cow::Borrowed(frame.bytes),
            options: vec![EnhancedPacketOption::Flags(direction)],
        };
        self.last_unix_time_ns = frame.unix_time_ns;
        self.writer.write_pcapng_block(block).map_err(io_error)?;
        Ok(())
    }

    /// Ends the file, which then says how many frames were lost.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn end(mut self, lost: u64) -> io::Result<()> {
        let block = InterfaceStatisticsBlock {
            interface_id: 0,
            // Its upper half comes first.
            timestamp: self.last_unix_time_ns.rotate_left(32),
            options: vec![InterfaceStatisticsOption::IsbOsDrop(lost)],
        };
        if !self.queues.is_empty() {
            self.writer.write_pcapng_block(block).map_err(io_error)?;
        }
        self.flush()
    }

    /// Hands over what was added so far.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut bytes = Vec::new();
        let mut file = File::begin(&mut bytes, &[3, 5], 64).unwrap();
        let frame = |queue, direction| Frame {
            unix_time_ns: 1_700_000_000_123_456_789,
            queue,
            direction,
            frame_bytes: 1514,
            bytes: &[0xab; 64],
        };
        file.add(&frame(5, Direction::Received)).unwrap();
        file.add(&frame(3, Direction::Sent)).unwrap();
        assert!(file.add(&frame(4, Direction::Sent)).is_err());
        file.end(7).unwrap();

        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        let mut packets = Vec::new();
        let mut lost = None;
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::EnhancedPacket(packet) => packets.push((
                    packet.interface_id,
                    packet.timestamp.as_nanos(),
                    packet.original_len,
                    packet.data.len(),
                    packet.options[0].clone().into_owned(),
                )),
                Block::InterfaceStatistics(block) => {
                    lost = block
                        .options
                        .first()
                        .cloned()
                        .map(|option| option.into_owned())
                }
                _ => {}
            }
        }
        let time = 1_700_000_000_123_456_789;
        let flags = EnhancedPacketOption::Flags;
        assert_eq!(
            packets,
            [(1, time, 1514, 64, flags(1)), (0, time, 1514, 64, flags(2))]
        );
        assert_eq!(lost, Some(InterfaceStatisticsOption::IsbOsDrop(7)));
    }
}
