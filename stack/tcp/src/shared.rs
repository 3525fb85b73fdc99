//! The state that the shards of a server share. All of it is atomics, and no request touches it.

use std::sync::Arc;

use crate::addresses::NewAddresses;
use crate::config::StackConfig;
use crate::control::L2Header;
use crate::flow::LiveFlows;
use crate::forward::Forwarding;
use crate::guard::Secrets;
use crate::guard::cookie::CookieUse;
use crate::path::Paths;
use crate::sources::Sources;
use barewire_memory::OutOfMemory;

/// One for all shards of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shared {
    /// How large packets may be that reach a peer.
    pub(crate) paths: Paths,
    /// Which flows have a connection or a TIME-WAIT record at any shard.
    pub(crate) flows: Arc<LiveFlows>,
    /// Segments that arrived at the wrong shard.
    pub(crate) forwarding: Forwarding,
    /// How many connections each source has, if that matters.
    pub(crate) sources: Option<Arc<Sources>>,
    /// Whether there may be peers that hold a SYN cookie, whichever shard has sent it.
    pub(crate) cookies: CookieUse,
    /// Addresses that were added while the server runs.
    pub addresses: NewAddresses,
}

impl Shared {
    /// For so many shards, each made of `config` and `secrets`.
    ///
    /// # Errors
    ///
    /// If there is no memory for the table of live flows, which takes 4 to 8 bytes for each that there can be, or
    /// for the counts of sources, which take 8 MiB at most.
    pub fn new(
        config: &StackConfig,
        secrets: &Secrets,
        shards: usize,
    ) -> Result<Shared, OutOfMemory> {
        let flows = (config.connections as usize + config.time_wait as usize) * shards;
        Ok(Shared {
            paths: Paths::new(secrets, shards),
            flows: Arc::new(LiveFlows::new(flows)?),
            forwarding: Forwarding::new(shards, config.mtu + L2Header::BYTES_MAX),
            sources: Sources::new(config, secrets, shards)?.map(Arc::new),
            cookies: CookieUse::default(),
            addresses: NewAddresses::default(),
        })
    }
}
