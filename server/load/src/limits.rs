//! What the machine must allow: file descriptors and local ports.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// Why a run of this size is not possible here.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LimitError {
    /// RLIMIT_NOFILE cannot be raised far enough.
    #[error(
        "{needed} file descriptors are needed for this many connections, but the hard limit is {hard}: \
         raise it (`ulimit -Hn {needed}` as root, LimitNOFILE= under systemd) or lower --concurrency"
    )]
    Descriptors {
        /// How many are needed.
        needed: u64,
        /// How many there may be.
        hard: u64,
    },
    /// Every connection to one server address and port needs a local port of its own.
    #[error(
        "{connections} connections to one address need as many local ports, but there are only {ports}: \
         widen net.ipv4.ip_local_port_range (`sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"`) \
         or lower --concurrency"
    )]
    Ports {
        /// How many connections were asked for.
        connections: usize,
        /// How many ports there are.
        ports: usize,
    },
    /// The same, past the kernel.
    #[cfg(feature = "xdp")]
    #[error(
        "{connections} connections need as many source ports, but there are only {ports} that nobody else uses: \
         widen --source-ports, add a --source-address, or lower --concurrency"
    )]
    SourcePorts {
        /// How many connections were asked for.
        connections: usize,
        /// How many ports there are, over all source addresses.
        ports: usize,
    },
}

/// Descriptors that are needed besides those of the connections: standard streams, epoll, probes.
const DESCRIPTORS_BESIDES: u64 = 64;

/// Raises RLIMIT_NOFILE so that `connections` can be open at once.
///
/// # Errors
///
/// If the hard limit forbids it and may not be raised.
pub fn raise_descriptors(connections: usize, threads: usize) -> Result<(), LimitError> {
    let needed = connections as u64 + threads as u64 + DESCRIPTORS_BESIDES;
    let limit = getrlimit(Resource::Nofile);
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if is_enough(limit.current) {
        return Ok(());
    }
    let wanted = match is_enough(limit.maximum) {
        true => Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
        false => Rlimit {
            current: Some(needed),
            maximum: Some(needed),
        },
    };
    let hard = limit.maximum.unwrap_or(u64::MAX);
    setrlimit(Resource::Nofile, wanted).map_err(|_| LimitError::Descriptors { needed, hard })
}

/// Checks that the machine has a local port for each of `connections`.
///
/// # Errors
///
/// If it has not.
pub fn check_ports(connections: usize) -> Result<(), LimitError> {
    // Unreadable in an odd sandbox: then connecting will tell.
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    match count_ports(&range) {
        Some(ports) if ports < connections => Err(LimitError::Ports { connections, ports }),
        _ => Ok(()),
    }
}

/// How many ports `FIRST LAST` holds.
fn count_ports(range: &str) -> Option<usize> {
    let mut bounds = range.split_ascii_whitespace().map(str::parse::<usize>);
    let (first, last) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
    (last + 1).checked_sub(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_counted() {
        assert_eq!(count_ports("32768\t60999\n"), Some(28_232));
        assert_eq!(count_ports(""), None);
        assert!(check_ports(1).is_ok());
        assert!(matches!(
            check_ports(1 << 20),
            Err(LimitError::Ports {
                connections: 1_048_576,
                ..
            })
        ));
    }

    #[test]
    fn a_small_number_of_descriptors_is_always_there() {
        assert!(raise_descriptors(1, 1).is_ok());
    }

    #[test]
    fn an_impossible_number_of_descriptors_is_refused_with_the_cure() {
        // More than fs.nr_open can ever be.
        let message = raise_descriptors(usize::MAX >> 1, 1)
            .unwrap_err()
            .to_string();
        assert!(message.contains("ulimit -Hn") && message.contains("--concurrency"));
    }
}
