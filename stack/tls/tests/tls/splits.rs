//! Wherever the network cuts what a client sends, and whatever room there is for replies: the same conversation.

use std::io::Write as _;

use barewire_tls::Tls;

use crate::harness::{
    Files, Lines, Served, TLS13, client, hear, identity, limits, of_each_version, said, talk,
};
use barewire_service::service::Service as _;

#[test]
fn a_handshake_may_be_cut_anywhere() {
    let files = Files::new("cut_handshake");
    let pair = files.pair("a", &["localhost"]);
    let identity = identity(std::slice::from_ref(&pair));
    for setup in of_each_version(&pair.0) {
        let config = setup.config();
        for cut in (1..1700).step_by(13).chain(1..12) {
            let mut served = Served::new(&identity);
            let mut client = client(&config, "localhost");
            let mut text = Vec::new();
            client.writer().write_all(b"hello\n").unwrap();
            loop {
                let bytes = said(&mut client);
                if bytes.is_empty() {
                    break;
                }
                served.receive_in_parts(&bytes, cut);
                text.extend(hear(&mut client, &mut served.out).unwrap());
            }
            assert_eq!(text, b"HELLO\n", "{cut}");
        }
    }
}

#[test]
fn records_may_be_cut_anywhere() {
    let files = Files::new("cut_records");
    let pair = files.pair("a", &["localhost"]);
    let identity = identity(std::slice::from_ref(&pair));
    for setup in of_each_version(&pair.0) {
        let mut served = Served::new(&identity);
        let mut client = client(&setup.config(), "localhost");
        talk(&mut client, &mut served).unwrap();
        for cut in 1..120 {
            for line in ["first\n", "sec", "ond\nthi", "rd\n"] {
                client.writer().write_all(line.as_bytes()).unwrap();
            }
            let bytes = said(&mut client);
            let (front, back) = bytes.split_at(cut.min(bytes.len()));
            served.receive(front);
            served.receive(back);
            let text = hear(&mut client, &mut served.out).unwrap();
            assert_eq!(text, b"FIRST\nSECOND\nTHIRD\n", "{cut}");
        }
        for part_bytes in 1..40 {
            client.writer().write_all(b"a\nbc\n").unwrap();
            served.receive_in_parts(&said(&mut client), part_bytes);
            let text = hear(&mut client, &mut served.out).unwrap();
            assert_eq!(text, b"A\nBC\n", "{part_bytes}");
        }
    }
}

/// Conversations of a generator with a seed, against the same service without TLS.
#[test]
fn any_conversation_is_the_same_as_without_tls() {
    let files = Files::new("random");
    let pair = files.pair("a", &["localhost"]);
    let identity = identity(std::slice::from_ref(&pair));
    for seed in 0..60_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let setup = &of_each_version(&pair.0)[random.below(2)];
        let least = Tls::<Lines>::REPLY_BYTES_MIN;
        let (receive, reply) = (600 + random.below(20_000), least + random.below(40_000));
        let mut served = Served::with(&identity, limits(), receive, reply);
        let mut client = client(&setup.config(), "localhost");
        client.set_buffer_limit(None);
        talk(&mut client, &mut served).unwrap();
        let mut expected = Vec::new();
        let mut heard = Vec::new();
        for _ in 0..30 {
            match random.below(10) {
                0 => {
                    let len = random.below(50_000);
                    expected.resize(expected.len() + len, b'x');
                    writeln!(client.writer(), "big {len}").unwrap();
                }
                1 if setup.versions == TLS13 => {
                    client.refresh_traffic_keys().unwrap();
                }
                _ => {
                    let len = random.below(3_000);
                    let line = vec![b'a' + (len % 26) as u8; len];
                    let (front, back) = line.split_at(random.below(len + 1));
                    client.writer().write_all(front).unwrap();
                    client.writer().write_all(back).unwrap();
                    client.writer().write_all(b"\n").unwrap();
                    // What does not fit into one reply comes as a big one does.
                    expected.extend(line.to_ascii_uppercase());
                    expected.push(b'\n');
                }
            }
            let bytes = said(&mut client);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (part, later) = rest.split_at(1 + random.below(rest.len()));
                served.receive(part);
                rest = later;
            }
            heard.extend(hear(&mut client, &mut served.out).unwrap());
        }
        assert_eq!(heard.len(), expected.len(), "seed {seed}");
        let same = heard.iter().zip(&expected);
        let differs = same
            .enumerate()
            .find(|(_, (heard, expected))| heard != expected && **heard != b'x');
        assert_eq!(differs, None, "seed {seed}");
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
