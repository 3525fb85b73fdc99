//! What a stack gives away and takes, whichever it is: sockets with the kernel's stacks, records with the bypass.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use barewire_kernel::handover as kernel;
#[cfg(feature = "xdp")]
use barewire_xdp::handover as xdp;

use super::predecessor::Carriage;
use super::wire::{Kind, Line, Message, connections_of, connections_to_bytes};

/// A stack's end of a hand-over, for either side. Cheap to clone.
#[derive(Debug, Clone)]
pub enum HandOver {
    /// Of epoll and io_uring.
    Kernel(kernel::HandOver),
    /// Of the bypass.
    #[cfg(feature = "xdp")]
    Xdp(xdp::HandOver),
}

/// Cores that have stopped, for as long as this is there.
pub enum Frozen {
    /// Of epoll and io_uring.
    Kernel(kernel::Frozen),
    /// Of the bypass.
    #[cfg(feature = "xdp")]
    Xdp(xdp::Frozen),
}

impl HandOver {
    /// The part of an interface that the stack has, once it has started.
    pub fn interface(&self) -> Option<super::Interface> {
        match self {
            HandOver::Kernel(_) => None,
            #[cfg(feature = "xdp")]
            HandOver::Xdp(xdp) => xdp.place().map(|place| super::Interface {
                interface: place.interface.clone(),
                queues: place.queues.clone(),
                is_native: place.mode == barewire_xdp::redirect::Mode::Native,
            }),
        }
    }

    /// Gives a successor what it starts with.
    pub(super) fn send_in_advance(&self, line: &mut Line) -> io::Result<()> {
        match self {
            HandOver::Kernel(kernel) => {
                for group in kernel.listeners() {
                    let group: Vec<_> = group.iter().map(OwnedFd::as_fd).collect();
                    line.send(Kind::Listeners, &[], &group)?;
                }
                Ok(())
            }
            #[cfg(feature = "xdp")]
            HandOver::Xdp(xdp) => {
                let inheritance = xdp.inheritance()?;
                let descriptors: Vec<_> = [&inheritance.link]
                    .into_iter()
                    .chain(&inheritance.reserved)
                    .map(OwnedFd::as_fd)
                    .collect();
                let secrets = zeroize::Zeroizing::new(inheritance.secrets.to_bytes());
                line.send(Kind::Interface, &*secrets, &descriptors)
            }
        }
    }

    /// Takes what a predecessor gives that serves `addresses`, on a kernel stack.
    pub(super) fn inherit_listeners(line: &mut Line, addresses: usize) -> io::Result<HandOver> {
        let groups = (0..addresses).map(|_| Ok(line.expect(Kind::Listeners)?.descriptors));
        let groups = groups.collect::<io::Result<_>>()?;
        Ok(HandOver::Kernel(kernel::HandOver::inheriting(groups)))
    }

    /// Takes what a predecessor gives that has an interface, with its program in this mode.
    #[cfg(feature = "xdp")]
    pub(super) fn inherit_interface(line: &mut Line, is_native: bool) -> io::Result<HandOver> {
        use barewire_tcp::guard::Secrets;
        use barewire_xdp::redirect::Mode;

        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let message = line.expect(Kind::Interface)?;
        let bytes = zeroize::Zeroizing::new(message.bytes);
        let secrets = bytes.as_slice().try_into().ok().map(Secrets::from_bytes);
        let mut descriptors = message.descriptors.into_iter();
        let inheritance = xdp::Inheritance {
            link: descriptors.next().ok_or_else(malformed)?,
            reserved: descriptors.collect(),
            secrets: secrets.ok_or_else(malformed)?,
            mode: match is_native {
                true => Mode::Native,
                false => Mode::Generic,
            },
        };
        Ok(HandOver::Xdp(xdp::HandOver::inheriting(inheritance)))
    }

    /// Ends what cannot travel, within `timeout`; what can is served on.
    #[cfg_attr(
        not(feature = "xdp"),
        expect(
            unused_variables,
            reason = "on the kernel's stacks all can travel or stay"
        )
    )]
    pub(super) fn leave(&self, timeout: Duration) {
        match self {
            // What is busy is served where it is.
            HandOver::Kernel(_) => {}
            #[cfg(feature = "xdp")]
            HandOver::Xdp(xdp) => xdp.leave(timeout),
        }
    }

    /// There is no successor after all.
    pub(super) fn stay(&self) {
        match self {
            HandOver::Kernel(_) => {}
            #[cfg(feature = "xdp")]
            HandOver::Xdp(xdp) => xdp.stay(),
        }
    }

    /// Stops all cores, and lets the successor have their connections.
    pub(super) fn freeze(&self, line: &Arc<Carriage>, timeout: Duration) -> io::Result<Frozen> {
        match self {
            HandOver::Kernel(kernel) => {
                let courier: Arc<dyn kernel::Courier> = line.clone();
                kernel.freeze(&courier, timeout).map(Frozen::Kernel)
            }
            #[cfg(feature = "xdp")]
            HandOver::Xdp(xdp) => {
                let courier: Arc<dyn xdp::Courier> = line.clone();
                xdp.freeze(&courier, timeout).map(Frozen::Xdp)
            }
        }
    }

    /// Goes on with connections of the predecessor.
    pub fn admit(&self, message: Message) -> io::Result<()> {
        match self {
            HandOver::Kernel(kernel) => {
                let (core, connections) = connections_of(message)?;
                kernel.admit(core, connections);
            }
            #[cfg(feature = "xdp")]
            HandOver::Xdp(xdp) => {
                let (core, records) = (message.bytes.split_first_chunk())
                    .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
                xdp.admit(u16::from_le_bytes(*core).into(), records.to_vec());
            }
        }
        Ok(())
    }

    /// The predecessor has ended its part: the cores serve.
    pub fn begin(&self) {
        match self {
            HandOver::Kernel(kernel) => kernel.begin(),
            #[cfg(feature = "xdp")]
            HandOver::Xdp(xdp) => {
                // It serves all the same: the predecessor has ended.
                if let Err(error) = xdp.begin() {
                    tracing::error!(
                        "{error}: served by way of the kernel, which is slow; restart the server"
                    );
                }
            }
        }
    }
}

impl Frozen {
    /// The successor serves.
    pub fn hand_over(self) {
        match self {
            Frozen::Kernel(frozen) => frozen.hand_over(),
            #[cfg(feature = "xdp")]
            Frozen::Xdp(frozen) => frozen.hand_over(),
        }
    }

    /// How many connections were carried.
    pub fn connections(&self) -> usize {
        match self {
            Frozen::Kernel(frozen) => frozen.connections(),
            #[cfg(feature = "xdp")]
            Frozen::Xdp(frozen) => frozen.connections(),
        }
    }
}

impl kernel::Courier for Carriage {
    fn carry(
        &self,
        core: usize,
        idle: &[kernel::Idle],
        sockets: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let bytes = connections_to_bytes(core, idle);
        self.lock().send(Kind::Connections, &bytes, sockets)
    }
}

#[cfg(feature = "xdp")]
impl xdp::Courier for Carriage {
    fn carry(&self, core: usize, connections: &[u8]) -> io::Result<()> {
        let core = (core as u16).to_le_bytes();
        let bytes = [&core, connections].concat();
        self.lock().send(Kind::Connections, &bytes, &[])
    }
}
