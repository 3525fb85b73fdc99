//! Calls of a kind between many clients and an origin, for what they take on the wire: `scripts/teleport-wire` puts a proxy in
//! between, and counts.

mod clients;
mod origin;

use std::net::SocketAddr;

use barewire_benches::traffic::Traffic;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Calls for scripts/teleport-wire")]
struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Answer calls of every kind, by HTTP/1.1 and by teleport
    Origin {
        /// Where HTTP/1.1 is served
        http: SocketAddr,
        /// Where teleport is
        teleport: SocketAddr,
    },
    /// Make calls, and print how many were answered, in how many seconds
    Clients {
        /// The server
        address: SocketAddr,
        /// What is asked
        #[arg(value_enum)]
        traffic: Traffic,
        /// How many calls
        calls: u64,
        /// On how many connections, one at a time on each
        connections: usize,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().role {
        Role::Origin { http, teleport } => origin::serve(http, teleport),
        Role::Clients {
            address,
            traffic,
            calls,
            connections,
        } => clients::ask(address, traffic, calls, connections),
    }
}
